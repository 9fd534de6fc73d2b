"""Kernel stores of a small network, for several tests."""

from __future__ import annotations

from pathlib import Path

import udlbridge as ub
from helpers import random_model, samples

MODEL = random_model([5, 7, 3], ["tanh", "identity"])
X = samples(MODEL, 60)


def store_of(path: Path, n: int = 21, **options: object) -> ub.KernelStore:
    """The kernel of the first `n` samples, by hand unless `options` say otherwise."""
    return ub.compute_kernel(MODEL, X[:n], path, **{"backend": "reference", **options})  # type: ignore[arg-type]
