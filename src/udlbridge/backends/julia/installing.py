"""Setting Julia up with juliapkg, for those who asked for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from udlbridge.errors import JuliaUnavailable

REGISTRY = "JULIA_PKG_SERVER_REGISTRY_PREFERENCE"
"""Which registry Julia's package manager asks its server for; the default one may lag behind by a day."""

LONGEST = 300
"""Characters of a reason, which is one line."""

LAST_SECONDS = 5.0
"""How long the last words may take; what was started there and goes on, as juliaup may, is not waited for."""


def install() -> None:
    """Download Julia and its packages with juliapkg, saying so.

    Where that fails it is tried once more with the newest registry: the newest packages are in that alone.

    Raises:
        JuliaUnavailable: if that fails too; the message has the reason of Julia or of juliapkg.
    """
    print(
        "udlbridge: setting up Julia, Flux, Zygote and PythonCall for this Python environment with juliapkg.\n"
        "           The first time this downloads about 1 GB and takes several minutes.",
        file=sys.stderr,
        flush=True,
    )
    failure = _resolved()
    if failure and REGISTRY not in os.environ:
        print(f"udlbridge: {failure}; once more, with the newest registry", file=sys.stderr, flush=True)
        os.environ[REGISTRY] = "eager"
        try:
            failure = _resolved()
        finally:
            del os.environ[REGISTRY]
    if failure:
        raise JuliaUnavailable(
            f"juliapkg could not set up Julia ({failure})",
            remedy="check the network, or point to an existing Julia: `udlbridge julia use --exe E --project P`",
        )


def _resolved() -> str:
    """Why juliapkg failed, in one line; empty if it did not."""
    with _overheard() as said:
        try:
            import juliapkg

            juliapkg.resolve()
            return ""
        except (Exception, SystemExit) as error:
            failure = error
    errors = [line for line in said if line.startswith("ERROR: ")]
    if isinstance(failure, subprocess.CalledProcessError) and errors:
        return f"Julia: {errors[-1].removeprefix('ERROR: ')[:LONGEST]}"
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {lines[0][:LONGEST] if lines else 'it says no more'}"


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """What is said within it, by lines, also by the processes that are started there; all of it goes to standard error.

    What juliapkg and Julia's package manager say is not our result: standard output stays clean for --json -.
    """
    said: list[str] = []
    out, err = os.dup(1), os.dup(2)
    reading, writing = os.pipe()

    def pass_on() -> None:
        with open(reading, encoding="utf-8", errors="replace") as lines, open(err, "wb", buffering=0) as target:
            for line in lines:
                said.append(line.rstrip())
                target.write(line.encode())

    thread = threading.Thread(target=pass_on, name="udlbridge-installing", daemon=True)
    thread.start()
    try:
        os.dup2(writing, 1), os.dup2(writing, 2)
        with contextlib.redirect_stdout(sys.stderr):
            yield said
    finally:
        sys.stderr.flush()
        os.dup2(out, 1), os.dup2(err, 2)
        for descriptor in (writing, out):
            os.close(descriptor)
        thread.join(LAST_SECONDS)
