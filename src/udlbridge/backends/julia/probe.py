"""A Julia that is asked in a process of its own, where it may fail or hang without harm to this one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from udlbridge.errors import JuliaUnavailable

START_SECONDS = 60.0
"""How long a Julia may take to answer before it counts as hanging, wherever it is started."""

LAST_LINES = 8
"""How many of Julia's last lines an error repeats."""

REMEDIES = (
    "`udlbridge julia install` downloads Julia and its packages, or `udlbridge julia use --exe E --project P` "
    "points to a Julia and an environment that you have; `udlbridge doctor` says what is missing"
)


def version_of(exe: Path | str) -> str:
    """The version of Julia that an executable has, by asking it.

    Raises:
        JuliaUnavailable: it does not run, does not answer in `START_SECONDS`, or is not Julia.
    """
    said = _answer([str(exe), "--version"])
    if re.match(r"julia version \d", said) is None:
        raise JuliaUnavailable(
            f"{exe} is not Julia: asked for its version, it says {said[:60]!r}",
            allowed="the julia binary",
            remedy=REMEDIES,
        )
    return said.removeprefix("julia version ")


def check_start(exe: Path | str, project: Path | str) -> None:
    """Start Julia in its project and let it end at once.

    Raises:
        JuliaUnavailable: it fails, or does not end in `START_SECONDS`; the message has its own last lines.
    """
    _answer([str(exe), *_flags(project), "-e", "print(VERSION)"])


def load_failure(exe: Path | str, project: Path | str) -> str:
    """What Julia says last when it cannot load the package that talks to Python; empty if it can."""
    # Another Julia would look for a Python of its own, and the package for Conda.
    environment = {"JULIA_PYTHONCALL_EXE": sys.executable, "JULIA_CONDAPKG_BACKEND": "Null"}
    try:
        _answer([str(exe), *_flags(project), "-e", "using PythonCall"], environment)
    except JuliaUnavailable as error:
        return error.given
    return ""


def _flags(project: Path | str) -> list[str]:
    return [f"--project={project}", "--startup-file=no", "-O0", "--compile=min"]


def _answer(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    exe = command[0]
    try:
        julia = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise JuliaUnavailable(f"{exe} does not run ({error})", allowed="the julia binary", remedy=REMEDIES) from error
    with julia:
        try:
            said, complained = julia.communicate(timeout=START_SECONDS)
            failure = f"ended with code {julia.returncode}" if julia.returncode else ""
        except subprocess.TimeoutExpired as error:
            said, complained = error.stdout or b"", error.stderr or b""
            failure = f"did not answer within {START_SECONDS:g} seconds"
        finally:  # after Ctrl-C, too
            _end(julia)
    if failure:
        given = f"{exe} {failure}{last_lines(said, complained)}"
        raise JuliaUnavailable(given, allowed="the julia binary", remedy=REMEDIES)
    return said.decode(errors="replace").strip()


def _end(julia: subprocess.Popen[bytes]) -> None:
    """End it with all that it has started: behind a launcher or a script it is Julia itself that hangs."""
    if julia.poll() is not None:
        return
    if os.name == "nt":
        julia.kill()
    else:
        os.killpg(julia.pid, signal.SIGKILL)


def last_lines(*streams: bytes) -> str:
    """What a process said last, as the end of a sentence about it."""
    lines = [line for stream in streams for line in stream.decode(errors="replace").splitlines() if line.strip()]
    return "; it said:\n  " + "\n  ".join(lines[-LAST_LINES:]) + "\n" if lines else ", and said nothing"
