"""`udlbridge julia`: which Julia is used, and the configuration that says so."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from processes import ONE_CLIENT, apart, eventually, gone, run
from udlbridge import config
from udlbridge.backends.julia import runtime
from udlbridge.backends.julia.process import folders
from udlbridge.backends.julia.process.client import ProcessHost
from udlbridge.cli import group
from udlbridge.errors import ConfigError, JuliaUnavailable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the executables here are scripts of a shell")


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without any configuration, and a process that has not started Julia; where the file would be."""
    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    for name in ("UDLBRIDGE_JULIA_EXE", "UDLBRIDGE_JULIA_PROJECT", "PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def julia(*words: object) -> Result:
    return CliRunner().invoke(group, ["julia", *map(str, words)], standalone_mode=False)


def executable(folder: Path, says: str) -> Path:
    path = folder / "julia"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


def test_use_status_and_forget(file: Path, tmp_path: Path) -> None:
    exe = executable(tmp_path, "echo julia version 1.10.5")
    done = julia("use", "--exe", exe, "--project", tmp_path)
    assert done.return_value == 1
    assert "Julia 1.10.5" in done.output
    assert "not usable yet" in done.output
    assert re.search(r"lacks .*Flux", done.output)
    assert config.julia() == (str(exe), str(tmp_path))
    status = julia("status")
    assert status.return_value == 1
    assert f"named by    {file}" in status.output
    assert "names no Julia any more" in julia("forget").output
    assert not file.exists()
    again = julia("forget")
    assert again.return_value == 0
    assert again.output.strip() == f"{file} names no Julia"


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("true", r"is not Julia.*says ''"),
        ("echo Python 3.11.7", r"is not Julia.*says 'Python 3\.11\.7'"),
        ("echo julia version 1.10.5; exit 3", r"ended with code 3; it said"),
    ],
)
def test_what_is_not_julia_is_not_written_down(says: str, words: str, file: Path, tmp_path: Path) -> None:
    done = julia("use", "--exe", executable(tmp_path, says), "--project", tmp_path)
    with pytest.raises(JuliaUnavailable, match=words):
        raise done.exception
    assert not file.exists()


def test_a_file_that_cannot_run_is_not_written_down(file: Path, tmp_path: Path) -> None:
    path = executable(tmp_path, "true")
    path.chmod(0o644)
    assert isinstance(julia("use", "--exe", path, "--project", tmp_path).exception, JuliaUnavailable)
    assert not file.exists()


def test_a_broken_configuration_is_not_overwritten(file: Path, tmp_path: Path) -> None:
    file.write_text("[julia\n")
    exe = executable(tmp_path, "echo julia version 1.10.5")
    for words in (("use", "--exe", exe, "--project", tmp_path), ("forget",)):
        assert isinstance(julia(*words).exception, ConfigError)
    assert file.read_text() == "[julia\n"


def test_doctor_says_that_something_else_is_not_julia(file: Path) -> None:
    from udlbridge.backends.julia.runtime import Location
    from udlbridge.cli.findings import _julia_starts

    finding = _julia_starts(sys.executable, Location(Path(sys.executable), file.parent, "the test"))
    assert not finding.ok
    assert "is not Julia" in finding.found


@pytest.mark.parametrize(
    ("version", "python", "ok"),
    [
        ("1.10.4", (3, 0, 13), True),
        ("1.11.7", (1, 1, 1), True),
        ("1.12.0", (3, 4, 9), False),
        ("1.12.1", (3, 5, 0), True),
    ],
)
def test_openssl_of_python_and_julia(version: str, python: tuple[int, ...], ok: bool) -> None:
    from udlbridge.cli.findings import openssl

    finding = openssl(version, python)
    assert finding.ok == ok
    assert ("OpenSSL 3.5" in finding.remedy) == (not ok)


@pytest.mark.parametrize(("version", "said"), [("1.10.2", True), ("1.10.3", False)])
def test_doctor_names_the_versions_that_crash(version: str, said: bool, file: Path, tmp_path: Path) -> None:
    from udlbridge.backends.julia.runtime import Location
    from udlbridge.cli.findings import _julia_starts

    exe = executable(tmp_path, f"echo julia version {version}")
    finding = _julia_starts(str(exe), Location(exe, tmp_path, "the test"))
    assert finding.ok
    assert ("1.10.1 and 1.10.2 crash in juliacall" in finding.remedy) == said


@pytest.mark.parametrize(
    ("name", "value", "ok", "words"),
    [
        ("UDLBRIDGE_JULIA", "process", True, "process: Julia has a process of its own"),
        ("UDLBRIDGE_JULIA", "inprocess", True, "inprocess: Julia runs in the process that calls it"),
        ("UDLBRIDGE_JULIA", "elsewhere", False, "UDLBRIDGE_JULIA='elsewhere'"),
        ("UDLBRIDGE_JULIA_LINGER", "x", False, "UDLBRIDGE_JULIA_LINGER='x'"),
    ],
)
def test_doctor_says_where_julia_runs(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, ok: bool, words: str
) -> None:
    from udlbridge.cli.findings import place

    monkeypatch.setenv(name, value)
    finding = place()
    assert (finding.ok, finding.found) == (ok, words)
    assert bool(finding.remedy) == (not ok)


@pytest.mark.slow
def test_processes_are_shown_and_ended(tmp_path: Path) -> None:
    with apart() as home:
        assert "no process of Julia runs" in julia("stop").output
        waiting = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
        (folder,) = folders.members(home)
        eventually(lambda: folders.until(folder))
        host = ProcessHost("standin:Service")
        held = host.call("pid")  # the one that waited
        assert held == waiting
        other = int(run(ONE_CLIENT, UDLBRIDGE_JULIA_LINGER="600")[0])
        eventually(lambda: [f for f in folders.members(home) if folders.until(f)])
        said = julia("status", "--json", tmp_path / "status.json").output
        assert re.search(rf"process     {held} computes for someone; [\d.]+ MB", said)
        assert re.search(rf"process     {other} waits for a next command, at most [\d.]+ (s|min); [\d.]+ MB", said)
        rows = {row["pid"]: row for row in json.loads((tmp_path / "status.json").read_text())["processes"]}
        assert (rows[held]["busy"], rows[held]["until"]) == (True, None)
        assert 500 < rows[other]["until"] - time.time() <= 601  # it is told in whole seconds
        assert rows[other]["memory"] > 10e6
        said = julia("stop", "--json", tmp_path / "stop.json").output
        assert f"ended process {other}" in said
        assert f"process     {held} computes for someone" in said
        assert [row["pid"] for row in json.loads((tmp_path / "stop.json").read_text())["ended"]] == [other]
        assert gone(other)
        assert host.call("pid") == held
        assert f"ended process {held}" in julia("stop", "--all").output
        assert gone(held)
        assert host.call("pid") != held
        host.close()
