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
SECONDS = {
    "tracing": 260, "models": 190, "graphs": 100, "structured": 60, "translation": 55, "kernel": 45, "curvature": 35,
    "inference": 25, "observing": 25, "training": 25, "adtypes": 20, "programs": 17, "derivatives": 14, "operator": 14,
    "aqua": 13, "infinite": 10, "several_inputs": 15, "samples": 10, "slopes": 10, "stopping": 10, "own_models": 25,
}  # fmt: skip
"""What files take, of two processes on two cores of an AMD EPYC; others take less."""


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
    shares = dealt(test_files(), PROCESSES)
    with ThreadPoolExecutor(PROCESSES) as pool:
        return max(pool.map(lambda share: run([*command, *share], load_path), shares))


def test_files() -> list[str]:
    """The names that runtests.jl lists, in its order."""
    text = (PACKAGE / "test" / "runtests.jl").read_text()
    found = re.search(r"const FILES = \[(.*?)\]", text, re.DOTALL)
    assert found is not None, "runtests.jl lists no files"
    return re.findall(r'"(\w+)"', found[1])


def dealt(files: list[str], count: int) -> list[list[str]]:
    """The files for so many processes that end together: the longest first, each to who has least to do."""
    shares: list[list[str]] = [[] for _ in range(count)]
    for file in sorted(files, key=seconds, reverse=True):
        min(shares, key=lambda share: sum(map(seconds, share))).append(file)
    return shares


def seconds(file: str) -> int:
    """About how long a file takes."""
    return SECONDS.get(file, 4)


def run(command: list[str], load_path: str) -> int:
    """The exit code of a Julia process, whose output is printed in one piece when it ends."""
    environment = {**os.environ, "JULIA_LOAD_PATH": load_path, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout, flush=True)
    return 0 if done.returncode == 0 else 1


sys.exit(main())
