"""The pytest plugin: a `backend` fixture over the engines, `--udlbridge-backends`, the marker `julia`, honest skips.

It comes to those who ask for it, by `pytest_plugins = ["udlbridge.testing.plugin"]` in the topmost `conftest.py`.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from udlbridge import backends
from udlbridge.errors import UnknownBackend

OPTION = "--udlbridge-backends"
SETTING = "udlbridge_backends"
"""The same in pytest's configuration file; the option goes before it."""

REQUIRE = "UDLBRIDGE_REQUIRE"
"""Engines, with commas, whose absence is a failure and not a skip."""

_JULIA = "udlbridge_julia"
"""The property of a test marked `julia`: empty if it ran, else why it was skipped. Workers of xdist send it along."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting of the same meaning."""
    words = "engines for the `backend` fixture and the marker `julia`, with commas (default: all)"
    parser.getgroup("udlbridge").addoption(OPTION, dest=SETTING, default=None, metavar="NAMES", help=words)
    parser.addini(SETTING, words, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse unknown engines at once."""
    config.addinivalue_line("markers", "julia: the test needs Julia with Flux; skipped where it cannot be used")
    _selected(config)
    _required()


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.julia] * (n == "julia")) for n in backends.engines()])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of an engine; the test runs once for each, and is skipped with the reason where one cannot run."""
    name: str = request.param
    _skip_unless_usable(name)
    return name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop tests for engines other than those that were asked for."""
    selected = _selected(config)
    if selected is None:
        return
    keep: list[pytest.Item] = []
    drop: list[pytest.Item] = []
    for item in items:
        needs = {"julia"} if item.get_closest_marker("julia") else set()
        call = getattr(item, "callspec", None)
        if call is not None and call.params.get("backend") in backends.engines():
            needs.add(call.params["backend"])
        (keep if needs <= set(selected) else drop).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail if it is required, a test marked `julia` where Julia cannot be used."""
    if item.get_closest_marker("julia") is not None:
        state = backends.availability("julia")
        item.user_properties.append((_JULIA, "" if state.ok else state.reason))
        _skip_unless_usable("julia")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests ran with Julia and how many were skipped for want of it, and why."""
    ran: set[str] = set()
    skipped: dict[str, str] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            why = dict(getattr(report, "user_properties", ())).get(_JULIA)
            if why == "":
                ran.add(report.nodeid)
            elif why is not None and report.skipped:
                skipped[report.nodeid] = why
    if not ran and not skipped:
        return
    terminalreporter.write_sep("-", "udlbridge")
    terminalreporter.write_line(f"{len(ran)} tests ran with Julia, {len(skipped)} were skipped for want of it")
    for reason in sorted(set(skipped.values())):
        terminalreporter.write_line(f"  because julia cannot be used: {reason}")


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _selected(config: pytest.Config) -> list[str] | None:
    asked = config.getoption(SETTING)
    source = f"the setting {SETTING}" if asked is None else OPTION
    names = _listed(config.getini(SETTING) if asked is None else asked)
    if not names:
        return None
    try:
        return backends.selected(names)
    except UnknownBackend as error:
        raise pytest.UsageError(f"{source}: {error}") from None


def _required() -> list[str]:
    try:
        return backends.selected(_listed(os.environ.get(REQUIRE, "")))
    except UnknownBackend as error:
        raise pytest.UsageError(f"{REQUIRE}: {error}") from None


def _skip_unless_usable(name: str) -> None:
    state = backends.availability(name)
    if state.ok:
        return
    reason = f"{name} cannot be used: {state.reason}"
    if name in _required():
        pytest.fail(f"{reason}. What to do: {state.remedy}. ({REQUIRE} makes this a failure.)", pytrace=False)
    pytest.skip(reason)
