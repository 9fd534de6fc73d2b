"""Types of shapes are checked while the tests run, and nothing is downloaded."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("UDLBRIDGE_NO_DOWNLOAD", "1")
# Workers beside each other, and what they start, would wait for each other's threads.
for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(pool, "1")
# Most of the time of tests with Julia is compilation, which takes half as long with fewer optimisations.
os.environ.setdefault("PYTHON_JULIACALL_OPTIMIZE", "1")
# Most tests have Julia in their own process, where they can make objects of it and ask it for its threads, and where
# what one test has compiled is there for the next; `tests/backends/process` has it in another. All pass by
# UDLBRIDGE_JULIA=process, too, but those that ask for what is in this process.
os.environ.setdefault("UDLBRIDGE_JULIA", "inprocess")
# No process of Julia outlives a test run, also where tests run commands, which let it wait for the next one.
os.environ.setdefault("UDLBRIDGE_JULIA_LINGER", "0")
# A shell has what it starts in the background ignore Ctrl-C: tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def modules_with_shapes() -> list[str]:
    """Modules that name shapes. In others a checker finds none, and decorates nested functions anew at every call."""
    source = Path(__file__).parents[1] / "src"
    paths = sorted((source / "udlbridge").rglob("*.py"))
    naming = (path for path in paths if "from jaxtyping import" in path.read_text(encoding="utf-8"))
    return [".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in naming]


jaxtyping.install_import_hook(modules_with_shapes(), "beartype.beartype")
# Deadlines measure the machine; what is random is repeated in CI by its seed.
settings.register_profile("udlbridge", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("udlbridge")

GOLDENS = Path(__file__).parent / "goldens"
pytest_plugins = ["pytester", "udlbridge.testing.plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests that are `sampled`, and of all with Julia, a quick run takes the first variant for each engine.

    Zygote compiles for every architecture: with Julia, each further variant costs seconds. The others are `slow`, and
    so are the variants that a test calls `costly`.
    """
    seen: set[tuple[str, object]] = set()
    for item in items:
        spec = getattr(item, "callspec", None)
        engine = spec.params.get("backend") if spec is not None else None
        if engine == "julia" or item.get_closest_marker("julia") or item.get_closest_marker("sampled"):
            key = (item.nodeid.partition("[")[0], engine)
            if key in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(key)
        named = [name for mark in item.iter_markers("costly") for name in mark.args]
        if spec is not None and any(f"-{name}-" in f"-{spec.id}-" for name in named):
            item.add_marker(pytest.mark.slow)


class OneWithJulia(LoadFileScheduling):
    """The tests of a file go to one worker, and all that name Julia to one of their own."""

    def _split_scope(self, nodeid: str) -> str:
        return "julia" if "julia" in nodeid else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """In a quick run one worker has Julia: two would compile the same, and one would wait for the other's package."""
    return OneWithJulia(config, log) if config.getoption("markexpr") == "not slow" else None


@pytest.fixture
def untyped() -> Iterator[None]:
    """No checks of types, as users have it: for tests of what our own errors say about bad input."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def julia_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose Julia is not where it was, also where this process has started another."""
    from udlbridge.backends.julia import runtime

    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    monkeypatch.setenv("UDLBRIDGE_JULIA_EXE", "/nowhere/julia")
    monkeypatch.setenv("UDLBRIDGE_JULIA_PROJECT", "/nowhere")


@pytest.fixture
def images() -> np.ndarray:
    """The first ten MNIST training images, (10, 784) float32."""
    from udlbridge import data

    return data.mnist("train", n=10)[0]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 8 samples, so that small kernels have many."""
    from udlbridge.kernels import planning

    monkeypatch.setattr(planning, "LARGEST_TILE", 8)


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of few tiles for the workers of executors, so that small kernels have many."""
    from udlbridge.store import sharing

    monkeypatch.setattr(sharing, "SMALL_TASK", 0.0)
