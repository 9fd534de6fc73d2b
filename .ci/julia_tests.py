"""Run julia/test/runtests.jl with the Julia that udlbridge would use; say so where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from udlbridge.backends.julia import runtime


def main() -> int:
    """The exit code of the Julia tests, or 0 where Julia cannot be used."""
    state = runtime.availability()
    if not state.ok:
        print(f"not run: {state.reason}. What to do: {state.remedy}")
        return 0
    place = runtime.location() or runtime.juliapkg_location()
    package = Path(__file__).resolve().parent.parent / "julia"
    # The project first: it has the dependencies. The package after it.
    load_path = os.pathsep.join([str(place.project), str(package), "@stdlib"])
    # -O1: most of the time is compilation, which takes half as long then.
    command = [str(place.exe), "-O1", "--startup-file=no", str(package / "test" / "runtests.jl")]
    return subprocess.run(command, env={**os.environ, "JULIA_LOAD_PATH": load_path}, check=False).returncode


sys.exit(main())
