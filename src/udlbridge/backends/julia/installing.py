"""Setting Julia up with juliapkg, for those who asked for it."""

from __future__ import annotations

import contextlib
import os
import sys

from udlbridge.errors import JuliaUnavailable

REGISTRY = "JULIA_PKG_SERVER_REGISTRY_PREFERENCE"
"""Which registry Julia's package manager asks its server for; the default one may lag behind by a day."""


def install() -> None:
    """Download Julia and its packages with juliapkg, saying so.

    Where that fails it is tried once more with the newest registry: the newest packages are in that alone.

    Raises:
        JuliaUnavailable: if that fails too; the message has juliapkg's reason.
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
    try:
        # What juliapkg and Julia's package manager say is not our result: standard output stays clean for --json -.
        with contextlib.redirect_stdout(sys.stderr):
            import juliapkg

            juliapkg.resolve()
    except (Exception, SystemExit) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0][:300] if lines else 'it says no more'}"
    return ""
