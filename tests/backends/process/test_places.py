"""Where Julia runs: in a process of its own, or here."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from processes import apart
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia import hosts, runtime
from udlbridge.backends.julia.host import Held, Host
from udlbridge.backends.julia.hosted import HostedJulia
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.backends.julia.process import client
from udlbridge.backends.julia.process.client import ProcessHost
from udlbridge.backends.reduction import checked_reduction
from udlbridge.errors import BackendError, ConfigError


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been started, and what is in this process is but a name."""
    monkeypatch.setattr(hosts, "_process", hosts._Process())
    monkeypatch.setattr(hosts, "in_process", lambda: "here")
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize("word", ["process", "inprocess", None])
def test_the_environment_decides_and_else_whether_juliacall_is_here(
    places: None, monkeypatch: pytest.MonkeyPatch, word: str | None, imported: bool
) -> None:
    if imported:
        monkeypatch.setitem(sys.modules, "juliacall", SimpleNamespace())  # type: ignore[arg-type]
    if word is None:
        monkeypatch.delenv("UDLBRIDGE_JULIA", raising=False)
    else:
        monkeypatch.setenv("UDLBRIDGE_JULIA", word)
    found = hosts.host()
    default = "inprocess" if imported else hosts.DEFAULT_PLACE
    assert isinstance(found, ProcessHost) == ((word or default) == "process")
    assert hosts.host() is found


def test_no_other_place(places: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDLBRIDGE_JULIA", "elsewhere")
    with pytest.raises(ConfigError, match="process or inprocess"):
        hosts.host()


def test_while_it_answers_nobody_looks_for_julia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    monkeypatch.setattr(client, "SERVICE", "standin:Service")
    for name in ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.setenv(name, "")  # so that it is undone afterwards
    monkeypatch.setenv("UDLBRIDGE_JULIA_EXE", "/nowhere/julia")
    monkeypatch.setenv("UDLBRIDGE_JULIA_PROJECT", "/nowhere")
    with apart():
        host = ProcessHost("standin:Service")
        assert not runtime.availability().ok
        host.start()
        assert runtime.availability().ok
        assert os.environ["PYTHON_JULIACALL_EXE"] == "/nowhere/julia"  # an import of juliacall finds the same
        with pytest.raises(BackendError):
            host.call("end")
        assert not runtime.availability().ok
        host.start()
        host.close()
        assert not runtime.availability().ok
        other = ProcessHost("another:Service")
        with pytest.raises(ModuleNotFoundError):
            other.start()
        assert not runtime.availability().ok
        other.close()


class Recording(Host):
    """Says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def call(self, method: str, *args: object) -> object:
        self.asked.append(method)
        return {"outputs": np.empty(0), "pull": {}, "prepare": 1}.get(method)

    def call_into(self, out: np.ndarray, method: str, *args: object) -> None:
        self.asked.append(method)

    def forget(self, number: int) -> None:
        pass


def test_a_model_in_this_processs_julia_is_computed_there() -> None:
    """Julia has a process of its own, and the user has imported juliacall later, and made a model with it."""
    apart, here = Recording(), Recording()
    engine, x = HostedJulia(apart), np.eye(3)
    network = JuliaNetwork.at(here, 7, {(3,): 2}, None)
    engine.outputs(network, x)
    engine.pull(network, x, x)
    factors = engine.prepare(KernelJob(network, checked_reduction(0, 2)), x)
    assert isinstance(factors, Held)
    engine.fill(KernelJob(network, checked_reduction(0, 2)), factors, slice(0, 3), factors, slice(0, 3), x)
    engine.release(factors)
    assert here.asked == ["outputs", "pull", "prepare", "fill", "release"]
    assert apart.asked == []
