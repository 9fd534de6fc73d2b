"""Kill, corrupt and fuzz, and print what was lost: `python tests/faults/run.py`. The exit code is 0 only for nothing.

The defaults take about three minutes; larger numbers, by options, are for a night.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.campaigns import Outcome, corrupt, fuzz, kill
from faults.readers import READERS
from faults.urls import kill_at_urls
from faults.workers import kill_workers


def main() -> int:
    """Run the campaigns and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5, help="stores that are computed under SIGKILL, several for each")
    parser.add_argument("--url-kills", type=int, default=3, help="the same at a URL, against an S3 server here")
    parser.add_argument("--workers", type=int, default=20, help="stores that lose a worker of a Dask cluster each")
    parser.add_argument("--corruptions", type=int, default=200, help="damaged stores")
    parser.add_argument("--fuzz", type=int, default=100, help="damaged files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    results: dict[str, Outcome] = {}
    # First, while nothing has started a thread: these processes are forked.
    if hasattr(os, "fork"):
        results["kills"] = kill(asked.kills, asked.seed)
        results["kills at URLs"] = kill_at_urls(asked.url_kills, asked.seed)
    results["killed workers"] = kill_workers(asked.workers, asked.seed)
    results["corrupted stores"] = corrupt(asked.corruptions, asked.seed)
    for reader in READERS:
        results[f"fuzzed {reader}"] = fuzz(reader, asked.fuzz, asked.seed)
    print(f"{'':20} {'cases':>8} {'refused':>8} {'whole':>8} {'losses':>8}")
    for name, found in results.items():
        print(f"{name:20} {found.cases:8} {found.refused:8} {found.whole:8} {len(found.losses):8}")
    for found in results.values():
        for loss in found.losses:
            print(loss)
    return 1 if any(found.losses for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
