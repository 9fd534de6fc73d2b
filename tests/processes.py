"""Processes in the place of Julia's, in a folder of their own, and waiting for what becomes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from udlbridge.backends.julia.process import folders

ONE_CLIENT = """
import sys
from udlbridge.backends.julia.process.client import ProcessHost
host = ProcessHost("standin:Service")
print(host.call("pid"), host.call("count"), flush=True)
host.call("prepare", None, [1.0])
"""
"""A client that leaves something behind, and says who computed and what had been left there before."""


def eventually(happened: Callable[[], Any]) -> Any:
    """What it returns as soon as that counts as true."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"not in a minute: {happened}")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def run(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@contextmanager
def apart() -> Iterator[Path]:
    """A folder of all processes, which is empty again soon afterwards but for its lock."""
    short = Path(tempfile.mkdtemp(prefix="udl"))  # a socket's path has to be
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(short))
        patch.setenv("UDLBRIDGE_JULIA_LINGER", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        path = short / "udlbridge"
        try:
            yield path
            try:
                # Whoever ends does not wait for its process, which clears up when it notices.
                eventually(lambda: not path.exists() or set(os.listdir(path)) <= {"lock"})
            finally:
                for folder in folders.members(path):
                    folders.end(folder)
        finally:
            shutil.rmtree(short)
