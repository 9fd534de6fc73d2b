"""A newcomer's desk: an empty folder, a fresh Python, and no Julia, unless the newcomer has one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Desk:
    """A folder, in which scripts and commands are run as a person would, each in a process of its own."""

    folder: Path
    environment: dict[str, str]

    def script(self, name: str, text: str) -> str:
        """What the script prints; it must end well."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return self._run([sys.executable, name], 0)

    def shell(self, line: str, code: int = 0) -> str:
        """What a command `udlbridge ...` prints; it must end with this code."""
        return self._run([sys.executable, "-m", *shlex.split(line)], code)

    def _run(self, command: list[str], code: int) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk without Julia."""
    return Desk(tmp_path, {**os.environ, "UDLBRIDGE_CONFIG": str(tmp_path / "none"), "UDLBRIDGE_NO_DOWNLOAD": "1"})


@pytest.fixture
def desk_with_julia(tmp_path: Path) -> Desk:
    """A desk with the Julia of this machine; tests of it are marked `julia`, and skipped where there is none."""
    return Desk(tmp_path, dict(os.environ))
