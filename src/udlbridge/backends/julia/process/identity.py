"""What two processes have to have in common, if one is to compute for the other."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from udlbridge.backends.julia import runtime

PROTOCOL = "1"
"""Of what the two say to each other; another number where that changes."""

SETTINGS = ("JULIA_", "PYTHON_JULIACALL_", "LD_LIBRARY_PATH", "DYLD_")
"""How names of environment variables begin that Julia reads when it starts; those of threads end alike."""

LOCATION = ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT")


def identity(service: str) -> dict[str, str]:
    """Of this process: its code, Python, Julia, and the settings that Julia starts with.

    Args:
        service: the name of what is computed with.

    Raises:
        ConfigError: what names Julia cannot be used.
        JuliaUnavailable: the Julia package is missing.
    """
    named = runtime.location()
    where = (f"juliapkg of {sys.prefix}",) * 2 if named is None else (str(named.exe), str(named.project))
    settings = {
        name: value
        for name, value in sorted(os.environ.items())
        if (name.startswith(SETTINGS) or name.endswith("_NUM_THREADS")) and name not in LOCATION
    }
    options = {name: value for name, value in sorted(sys._xoptions.items()) if name.startswith("juliacall")}
    return {
        "protocol": PROTOCOL,
        "service": service,
        "udlbridge": metadata.version("udlbridge"),
        "code": _state(Path(__file__).resolve().parents[3]),
        "Julia package": _hash(runtime.package_path()),
        "Python": f"{platform.python_version()} at {sys.executable}",
        "numpy": np.__version__,
        "juliacall": str(runtime.juliacall_version()),
        "Julia": where[0],
        "Julia project": where[1],
        "settings": json.dumps([settings, options]),
    }


def differences(own: dict[str, str], other: dict[str, str]) -> list[str]:
    """The names of what is not the same."""
    return [name for name in {**own, **other} if own.get(name) != other.get(name)]


@cache
def _state(package: Path) -> str:
    """The folder of this package, and which of its files have changed when; a process has the code of its start."""
    rows = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(package.rglob("*.py"))]
    return f"{package} {hashlib.sha256(repr(rows).encode()).hexdigest()}"


@cache
def _hash(package: Path) -> str:
    """Of all that Julia loads of its package."""
    digest = hashlib.sha256()
    for path in [package / "Project.toml", *sorted(package.glob("src/**/*.jl")), *sorted(package.glob("ext/*.jl"))]:
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(path.read_bytes())
    return f"{package} {digest.hexdigest()}"
