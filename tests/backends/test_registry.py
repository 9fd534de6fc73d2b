"""Engines are found by entry points, know their own facts, and start nothing before they are asked for."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import random_model, samples
from udlbridge import backends, errors
from udlbridge.backends.reference import ReferenceEngine
from udlbridge.kernels.request import checked_engine
from udlbridge.predict.classification import predicted_outputs

MODEL = random_model([3, 4, 2], ["tanh", "identity"])
X = samples(MODEL, 5)


class Fourth(ReferenceEngine):
    """An engine of another package."""

    name = "fourth"
    start_order = 15


class Sums(ReferenceEngine):
    """One that computes two operations of graphs, and nothing besides what every engine has."""

    name = "sums"
    graph_operations = frozenset({"linear", "tanh"})


FOURTH, SUMS = Fourth(), Sums()
NO_ENGINE = 3.14


def installed(monkeypatch: pytest.MonkeyPatch, points: dict[str, str]) -> None:
    """Entry points as if other packages had brought them."""
    found = [EntryPoint(name, value, backends.GROUP) for name, value in points.items()]
    monkeypatch.setattr(backends, "entry_points", lambda group: found)
    backends.engines.cache_clear()
    backends._started.cache_clear()


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    yield
    backends.engines.cache_clear()
    backends._started.cache_clear()


OURS = {
    "reference": "udlbridge.backends.reference:ENGINE",
    "julia": "udlbridge.backends.julia:ENGINE",
    "torch": "udlbridge.backends.pytorch:ENGINE",
}


def test_the_engines_of_this_package_are_entry_points_in_starting_order() -> None:
    assert list(backends.engines()) == ["julia", "torch", "reference"]
    assert set(backends.SHIPPED) <= set(backends.engines())
    assert backends.selected(["reference", "torch", "torch", "julia"]) == ["julia", "torch", "reference"]


def test_an_engine_is_one_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a_fourth_package", sys.modules[__name__])
    installed(monkeypatch, {**OURS, "fourth": "a_fourth_package:FOURTH"})
    assert list(backends.engines()) == ["julia", "fourth", "torch", "reference"]
    assert "fourth" in backends.usable()
    assert ub.ntk(MODEL, X, backend="fourth").shape == (5, 5)
    assert ub.plan(MODEL, 9, sample_shape=(3,), backend="fourth", calibrate=False).backend == "fourth"


def graph(*operations: str) -> ub.Graph:
    """Linear, and then operations of one input without settings."""
    names = ("linear", *operations)
    nodes = [
        ub.Node(str(index), op, ("x", "w") if op == "linear" else (str(index - 1),)) for index, op in enumerate(names)
    ]
    return ub.Graph(nodes, nodes[-1].name, params={"w": np.eye(2, 3)}, sample_shape=(3,))


def test_an_engine_says_which_operations_of_graphs_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a_package", sys.modules[__name__])
    installed(monkeypatch, {**OURS, "sums": "a_package:SUMS"})
    x = np.ones((2, 3))
    known, unknown = graph("tanh"), graph("tanh", "exp")
    assert "sums" in backends.computing(known)
    assert "sums" not in backends.computing(unknown)
    np.testing.assert_allclose(ub.ntk(known, x, backend="sums"), ub.ntk(known, x, backend="reference"), rtol=1e-12)
    with pytest.raises(errors.OptionError, match=r"backend='sums' for a udlbridge.Graph that has exp.*'reference'"):
        ub.ntk(unknown, x, backend="sums")
    # Of check's engines it is left out, and where it is the default, another takes its place.
    monkeypatch.setattr(backends, "usable", lambda: ["reference", "sums"])
    assert "such a graph" in ub.check(unknown, x).skipped["sums"]
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "sums")
    assert checked_engine(known, None) == "sums"
    assert checked_engine(unknown, None) in ("torch", "reference")


def test_what_an_engine_lacks_names_those_that_have_it() -> None:
    x, network = np.ones((2, 3)), graph("tanh")
    with pytest.raises(errors.OptionError, match=r"structured kernels of graphs.*'reference'.*backend='torch'"):
        ub.ntk(network, x, method="structured", backend="reference")
    with pytest.raises(errors.OptionError, match=r"polynomial of degree 2.*'reference'.*backend='torch'"):
        ub.taylor_expand(MODEL, 2).outputs(MODEL, X, backend="reference")
    with pytest.raises(errors.OptionError, match=r"infinite width.*'reference'.*backend='julia'"):
        ub.infinite.kernels(MODEL, X, w_std=1.0, b_std=0.0, backend="reference")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package:ENGINE", "cannot be loaded.*ModuleNotFoundError"),
        ("a_fourth_package:NO_ENGINE", "names a float, which is no Engine"),
        ("a_fourth_package:FOURTH", "calls itself 'fourth'"),
    ],
)
def test_an_entry_point_that_leads_nowhere_takes_no_other_engine_along(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "a_fourth_package", sys.modules[__name__])
    installed(monkeypatch, {**OURS, "fifth": value})
    assert "reference" in backends.usable()
    assert "fifth" not in backends.usable()
    for act in (
        lambda: backends.get("fifth"),
        lambda: ub.ntk(MODEL, X, backend="fifth"),
        lambda: ub.plan(MODEL, 9, sample_shape=(3,), backend="fifth", calibrate=False),
    ):
        with pytest.raises(errors.BackendUnavailable, match=rf"fifth.*{reason}.*again"):
            act()


def test_without_entry_points_the_remedy_is_to_install_again(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {})
    with pytest.raises(errors.UnknownBackend, match=r"'reference'.*install udlbridge again"):
        ub.ntk(MODEL, X, backend="reference")
    installed(monkeypatch, {name: value for name, value in OURS.items() if name != "julia"})
    with pytest.raises(errors.UnknownBackend, match=r"'julia'.*Allowed: torch, reference.*install udlbridge again"):
        backends.get("julia")


def test_two_engines_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint("torch", value, backends.GROUP) for value in (OURS["torch"], "another_package:ENGINE")]
    monkeypatch.setattr(backends, "entry_points", lambda group: found)
    backends.engines.cache_clear()
    with pytest.raises(errors.BackendError, match=r"two engines are called 'torch'.*another_package.*uninstall"):
        backends.get("torch")


@pytest.mark.parametrize(
    ("backend", "device", "words"),
    [
        ("reference", "cuda", r"device='cuda' with backend='reference'.*Allowed: cpu.*use backend='torch'"),
        ("julia", "mps", r"device='mps' with backend='julia'.*Allowed: cpu.*use backend='torch'"),
        ("torch", "tpu", r"device='tpu' with backend='torch'.*Allowed: cpu, cuda, mps"),
        ("reference", 3, r"device=3.*Allowed: cpu.*choose one"),
    ],
)
def test_a_device_of_another_kind(backend: str, device: Any, words: str) -> None:
    with pytest.raises(errors.OptionError, match=words):
        backends.checked_device(backend, device)
    assert backends.checked_device("torch", "cuda:1") == "cuda:1"


def test_every_public_door_refuses_a_device_that_the_engine_does_not_know(tmp_path: Path) -> None:
    store = ub.compute_kernel(MODEL, X, tmp_path / "K.zarr", backend="reference")
    y, digits = X[:, :2], (X, np.arange(len(X)))
    for act in (
        lambda: ub.ntk(MODEL, X, backend="reference", device="cuda"),
        lambda: ub.compute_kernel(MODEL, X, tmp_path / "other.zarr", backend="reference", device="cuda"),
        lambda: store.append(X, device="cuda"),
        lambda: store.repair(device="cuda"),
        lambda: ub.train(MODEL, X, y, epochs=1, loss="mse", backend="reference", device="cuda"),
        lambda: ub.plan(MODEL, 9, backend="reference", device="cuda", calibrate=False),
        lambda: ub.ntk_operator(MODEL, X, backend="reference", device="cuda"),
        lambda: ub.spectrum(MODEL, x=X, backend="reference", device="cuda"),
        lambda: predicted_outputs(MODEL, X, X, y, outputs=0, backend="reference", device="cuda"),
        lambda: ub.study_alignment(digits, digits, backends=["reference"], device="cuda", progress=False),
    ):
        with pytest.raises(errors.OptionError, match=r"device='cuda' with backend='reference'"):
            act()


@pytest.mark.parametrize("collecting", [True, False])
def test_torch_is_imported_without_looking_for_garbage(collecting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[bool] = []

    class Seen(ModuleType):
        def __getattr__(self, name: str) -> Any:
            during.append(gc.isenabled())
            return dict

    module = "udlbridge.backends.pytorch.engine"
    monkeypatch.setitem(sys.modules, module, Seen(module))
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        backends.engine("torch").load()
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()
    assert set(during) == {False}


def test_facts_and_plans_start_nothing() -> None:
    code = (
        "import json, sys, udlbridge as ub\n"
        "from udlbridge import backends\n"
        "model = ub.models.notebook_method1()\n"
        "plan = lambda name: ub.plan(model, 10**6, backend=name, calibrate=False)\n"
        "plans = {name: plan(name).ram_bytes for name in backends.engines()}\n"
        "states = {name: backends.availability(name).ok for name in backends.engines()}\n"
        "print(json.dumps([plans, states, [m for m in ('torch', 'juliacall') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plans, states, imported = json.loads(done.stdout)
    assert set(plans) == {"julia", "torch", "reference"}
    assert all(size > backends.engine(name).footprint.fixed_bytes for name, size in plans.items())
    assert states["reference"]
    assert imported == []
