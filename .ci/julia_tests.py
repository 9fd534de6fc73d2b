"""Run the tests of the Julia package with the Julia that udlbridge would use; say so where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from udlbridge.backends.julia import runtime

PACKAGE = Path(__file__).resolve().parent.parent / "julia"
PROCESSES = min(4, os.cpu_count() or 1)
"""They run at the same time: most of the time is compilation, which uses one core. Each takes up to 3 GB."""


def main() -> int:
    """1 where a test failed, or 0, also where Julia cannot be used."""
    state = runtime.availability()
    if not state.ok:
        print(f"not run: {state.reason}. What to do: {state.remedy}")
        return 0
    place = runtime.location() or runtime.juliapkg_location()
    # The project first: it has the dependencies. The package after it.
    load_path = os.pathsep.join([str(place.project), str(PACKAGE), "@stdlib"])
    # -O1: compilation takes half as long then.
    command = [str(place.exe), "-O1", "--startup-file=no", str(PACKAGE / "test" / "runtests.jl")]
    files = test_files()
    shares = [files[start::PROCESSES] for start in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        return max(pool.map(lambda share: run([*command, *share], load_path), shares))


def test_files() -> list[str]:
    """The names that runtests.jl lists, in its order."""
    text = (PACKAGE / "test" / "runtests.jl").read_text()
    found = re.search(r"const FILES = \[(.*?)\]", text, re.DOTALL)
    assert found is not None, "runtests.jl lists no files"
    return re.findall(r'"(\w+)"', found[1])


def run(command: list[str], load_path: str) -> int:
    """The exit code of a Julia process, whose output is printed in one piece when it ends."""
    environment = {**os.environ, "JULIA_LOAD_PATH": load_path, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout, flush=True)
    return 0 if done.returncode == 0 else 1


sys.exit(main())
