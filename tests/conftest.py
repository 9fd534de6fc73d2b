"""Types of shapes are checked while the tests run, and nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("UDLBRIDGE_NO_DOWNLOAD", "1")
jaxtyping.install_import_hook(
    [
        "udlbridge.analysis",
        "udlbridge.backends",
        "udlbridge.data",
        "udlbridge.infinite",
        "udlbridge.kernels",
        "udlbridge.predict",
        "udlbridge.training",
    ],
    "beartype.beartype",
)
# Deadlines measure the machine; what is random is repeated in CI by its seed.
settings.register_profile("udlbridge", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("udlbridge")

GOLDENS = Path(__file__).parent / "goldens"
pytest_plugins = ["pytester", "udlbridge.testing.plugin"]


@pytest.fixture
def untyped() -> Iterator[None]:
    """No checks of types, as users have it: for tests of what our own errors say about bad input."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


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
