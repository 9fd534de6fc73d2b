"""juliapkg's way to a Julia, as far as it goes without a network: Julia's package manager, and packages from here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from packages import lowest, serving, tree_hash
from udlbridge.backends.julia import installing, runtime

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the paths of tarballs are those of POSIX")

Run = Callable[..., subprocess.CompletedProcess[str]]
RESOLVE = "from udlbridge.backends.julia import installing; installing.install()"


def test_hashes_are_those_of_git() -> None:
    assert tree_hash({}) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert tree_hash({"a": {"b": "c\n"}, "a.txt": ""}) == "91bc912fbff6baf6334f7271e8c5959d29602128"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A program of Python for a user who has Julia and nothing else: no packages, no registry, no configuration."""
    named = runtime.location()
    exe = named.exe if named is not None else runtime.juliapkg_location().exe
    for name in list(os.environ):
        if name.startswith(("UDLBRIDGE_JULIA_", "PYTHON_JULIA", "JULIA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PYTHON_JULIAPKG_EXE", str(exe))
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(tmp_path / "environment"))
    monkeypatch.setenv("JULIA_DEPOT_PATH", str(tmp_path / "depot"))

    def program(*arguments: str, server: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "JULIA_PKG_SERVER": server},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return program


def wanted() -> dict[tuple[str, str], str]:
    """What juliapkg would install, in the lowest versions that are allowed."""
    import juliapkg.deps

    return {(found.name, found.uuid): lowest(str(found.version)) for found in juliapkg.deps.find_requirements()[1]}


@pytest.mark.julia
@pytest.mark.slow
def test_packages_come_from_a_registry(run: Run, tmp_path: Path) -> None:
    needed = wanted()
    assert {name for name, _ in needed} >= runtime.needed_packages()
    with serving(needed, needed) as packages:
        before = run("-m", "udlbridge", "julia", "status", server=packages.url)
        assert (before.returncode, packages.preferences) == (1, [])  # looking downloads nothing
        done = run("-c", RESOLVE, server=packages.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""  # which is for results
        assert set(packages.preferences) == {""}
        found = runtime.project_versions(tmp_path / "environment")
        assert {name: found[name] for name, _ in needed} == {name: version for (name, _), version in needed.items()}
        asked = len(packages.preferences)
        after = run("-m", "udlbridge", "julia", "status", "--json", "-", server=packages.url)
        assert json.loads(after.stdout)["usable"] is True
        assert f"project     {tmp_path / 'environment'}\nset up by   juliapkg\nusable\n" in after.stderr
        again = run("-c", RESOLVE, server=packages.url)
        assert (again.returncode, len(packages.preferences)) == (0, asked)  # all is there


@pytest.mark.julia
@pytest.mark.slow
def test_a_registry_that_lags_behind(run: Run, tmp_path: Path) -> None:
    """The newest one is asked for once; where that lacks a package too, there is one line that says which."""
    needed = wanted()
    old = {(name, uuid): "0.1.0" if name == "Flux" else version for (name, uuid), version in needed.items()}
    with serving(old, old) as packages:
        failed = run("-m", "udlbridge", "julia", "install", server=packages.url)
    last = failed.stderr.strip().splitlines()[-1]
    assert failed.returncode == 2
    assert last.startswith("udlbridge: juliapkg could not set up Julia (Julia: Unsatisfiable requirements detected for")
    assert "Flux" in last
    assert failed.stderr.count("once more, with the newest registry") == 1
    assert "Traceback" not in failed.stderr
    assert packages.preferences[-1] == "eager"
    with serving(old, needed) as packages:
        done = run("-c", RESOLVE, server=packages.url)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("once more, with the newest registry") == 1
    assert {"", "eager"} == set(packages.preferences)
    assert runtime.project_versions(tmp_path / "environment")["Flux"] == needed["Flux", _uuid(needed, "Flux")]


def _uuid(needed: dict[tuple[str, str], str], name: str) -> str:
    return next(uuid for own, uuid in needed if own == name)


@pytest.mark.julia
@pytest.mark.slow
def test_no_server_at_all(run: Run) -> None:
    failed = run("-m", "udlbridge", "julia", "install", server="http://127.0.0.1:9")
    assert failed.returncode == 2
    assert failed.stderr.strip().splitlines()[-1].startswith("udlbridge: juliapkg could not set up Julia (Julia: ")
    assert "Traceback" not in failed.stderr


def test_what_is_said_meanwhile_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with installing._overheard() as said:
        subprocess.run(["sh", "-c", "echo one; echo two >&2; printf three"], check=True)
    print("four")
    assert said == ["one", "two", "three"]
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("four\n", "one\ntwo\nthree")
