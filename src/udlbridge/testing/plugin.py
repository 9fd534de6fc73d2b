"""The pytest plugin: a `backend` fixture over the engines, `--backends`, the marker `julia`, and honest skips.

It is loaded in every pytest run of an environment that has udlbridge, so it imports nothing heavy by itself.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

REQUIRE = "UDLBRIDGE_REQUIRE"
"""Engines, with commas, whose absence is a failure and not a skip."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--backends`."""
    group = parser.getgroup("udlbridge")
    group.addoption(
        "--backends",
        default=None,
        metavar="NAMES",
        help="engines for the `backend` fixture, with commas (default: all)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse unknown engines at once."""
    config.addinivalue_line("markers", "julia: the test needs Julia with Flux; skipped where it cannot be used")
    config.stash[_SKIPPED] = {}
    config.stash[_RAN] = set()
    _chosen(config)


_SKIPPED: pytest.StashKey[dict[str, str]] = pytest.StashKey()
_RAN: pytest.StashKey[set[str]] = pytest.StashKey()


@pytest.fixture(params=[pytest.param("julia", marks=pytest.mark.julia), "torch", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an engine; the test runs once for each, and is skipped with the reason where one cannot run."""
    name: str = request.param
    _skip_unless_usable(name, request.node)
    return name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--backends`, drop the variants of tests for other engines."""
    chosen = _chosen(config)
    if chosen is None:
        return
    keep: list[pytest.Item] = []
    drop: list[pytest.Item] = []
    for item in items:
        engine = getattr(item, "callspec", None) and item.callspec.params.get("backend")  # type: ignore[attr-defined]
        (drop if engine is not None and engine not in chosen else keep).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail if it is required, a test marked `julia` where Julia cannot be used."""
    if item.get_closest_marker("julia") is not None:
        _skip_unless_usable("julia", item)
        item.config.stash[_RAN].add(item.nodeid)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how many tests ran with Julia and how many were skipped for want of it, and why."""
    ran, skipped = config.stash[_RAN], config.stash[_SKIPPED]
    if not ran and not skipped:
        return
    terminalreporter.write_sep("-", "udlbridge")
    line = f"{len(ran)} tests ran with Julia, {len(skipped)} were skipped for want of it"
    terminalreporter.write_line(line)
    for reason in sorted(set(skipped.values())):
        terminalreporter.write_line(f"  because {reason}")


def _chosen(config: pytest.Config) -> list[str] | None:
    given = config.getoption("--backends")
    if not given:
        return None
    from udlbridge import backends
    from udlbridge.errors import UnknownBackend

    try:
        return backends.selected([name.strip() for name in given.split(",")])
    except UnknownBackend as error:
        raise pytest.UsageError(f"--backends: {error}") from None


def _skip_unless_usable(name: str, item: pytest.Item) -> None:
    from udlbridge import backends

    state = backends.availability(name)
    if state.ok:
        return
    reason = f"{name} cannot be used: {state.reason}"
    if name in [required.strip() for required in os.environ.get(REQUIRE, "").split(",")]:
        pytest.fail(f"{reason}. What to do: {state.remedy}. ({REQUIRE} makes this a failure.)", pytrace=False)
    if name == "julia":
        item.config.stash[_SKIPPED][item.nodeid] = reason
    pytest.skip(reason)
