"""A Julia that fails or hangs at its start, and settings with which it cannot start: clear errors, and in time."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from udlbridge import errors
from udlbridge.backends.julia import probe, runtime
from udlbridge.cli.findings import examine

POSIX = pytest.mark.skipif(os.name == "nt", reason="the Julia that fails is a shell script")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Julia, to be written as a shell script, and a project that has all packages on paper."""
    project = tmp_path / "project"
    project.mkdir()
    rows = [f'[[deps.{name}]]\nversion = "1.0.0"\n' for name in sorted(runtime.needed_packages())]
    (project / "Manifest.toml").write_text("\n".join(rows))
    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    # This process may have it already; the start asks only where it has not.
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)
    monkeypatch.setenv("UDLBRIDGE_JULIA_EXE", str(tmp_path / "julia"))
    monkeypatch.setenv("UDLBRIDGE_JULIA_PROJECT", str(project))
    return tmp_path / "julia"


def write_julia(path: Path, otherwise: str) -> None:
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo julia version 1.10.5 && exit 0\n{otherwise}\n')
    path.chmod(0o755)


def found_by_doctor() -> str:
    finding = next(finding for finding in examine() if finding.part == "Julia")
    assert not finding.ok
    return finding.found


@POSIX
def test_a_julia_that_fails_shows_its_last_lines(broken: Path) -> None:
    write_julia(broken, "for i in $(seq 20); do echo line $i; done\necho ERROR: no such image >&2\nexit 3")
    with pytest.raises(
        errors.JuliaUnavailable, match=r"ended with code 3; it said:(\n.*)*line 20\n.*ERROR: no such image"
    ):
        runtime.start()
    assert os.environ.get("PYTHON_JULIACALL_EXE") != str(broken)  # the next start may find another Julia
    assert "ERROR: no such image" in found_by_doctor()
    assert "line 2\n" not in found_by_doctor()


@POSIX
def test_a_julia_that_hangs_is_ended(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_julia(broken, "echo waiting for a lock >&2\nexec sleep 60")
    monkeypatch.setattr(probe, "START_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(errors.JuliaUnavailable, match=r"did not answer within 0\.5 seconds; it said:\n.*for a lock"):
        runtime.start()
    assert "did not answer within 0.5 seconds" in found_by_doctor()
    assert time.monotonic() - began < 20


@POSIX
def test_a_launcher_is_ended_with_the_julia_that_it_started(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = broken.with_name("late")
    write_julia(broken, f"(sleep 1; touch {late}) &\necho waiting for a lock >&2\nwait")
    monkeypatch.setattr(probe, "START_SECONDS", 0.5)
    with pytest.raises(errors.JuliaUnavailable, match=r"did not answer within 0\.5 seconds; it said:\n.*for a lock"):
        runtime.start()
    time.sleep(1)
    assert not late.exists()


@POSIX
def test_the_version_is_asked_for_no_longer_than_that(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.write_text("#!/bin/sh\nexec sleep 60\n")
    broken.chmod(0o755)
    monkeypatch.setattr(probe, "START_SECONDS", 0.5)
    with pytest.raises(errors.JuliaUnavailable, match=r"did not answer within 0\.5 seconds, and said nothing"):
        probe.version_of(broken)


@POSIX
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PYTHON_JULIACALL_INIT", "no", r"init=no forbids.*unset PYTHON_JULIACALL_INIT"),
        ("PYTHON_JULIACALL_THREADS", "many", r"cannot have 'many' threads.*a number from 1 on, or auto"),
        ("PYTHON_JULIACALL_THREADS", "0", r"cannot have '0' threads"),
        ("PYTHON_JULIACALL_THREADS", "-2", r"cannot have '-2' threads"),
    ],
)
def test_settings_with_which_julia_cannot_start(
    name: str, value: str, words: str, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_julia(broken, "exit 3")
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.ConfigError, match=words):
        runtime.start()


@pytest.mark.julia
def test_a_real_julia_answers() -> None:
    installation = runtime.location() or runtime.juliapkg_location()
    probe.check_start(installation.exe, installation.project)
    assert probe.load_failure(installation.exe, installation.project) == ""
