"""Kernels are finite or refused: the error for an entry that is not."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from udlbridge.errors import NumericalError


def check_finite(block: np.ndarray, name: str = "K", corner: tuple[int, ...] = (0, 0)) -> None:
    """Raise `NumericalError` unless every entry of a block of a kernel (r, c, ...), or of a product with it, is finite.

    Args:
        block: the entries.
        name: what the error calls the kernel.
        corner: where in the kernel the block begins.

    Raises:
        NumericalError: with the first entry that is not finite, the cause and the remedy.
    """
    # One pass that writes nothing: a sum is not finite where an entry is not. Where it is not, entries may still be.
    wide = np.float32 if block.dtype == np.float16 else block.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.sum(dtype=wide)):
            return
    bad = np.argwhere(~np.isfinite(block))
    if not len(bad):
        return
    first = tuple(int(index) for index in bad[0])
    value, limit = block[first], float(np.finfo(block.dtype).max)
    where = ", ".join(str(index + start) for index, start in zip_longest(first, corner[: block.ndim], fillvalue=0))
    cause = "a number on the way to it is not defined, or" if np.isnan(value) else "it, or a number on the way to it,"
    raise NumericalError(
        f"{name}[{where}] is {value} in {block.dtype}: {cause} is larger than {limit:.2g}",
        allowed="finite numbers",
        remedy="scale the samples or the weights down: no dtype here is wider"
        if block.dtype == np.float64
        else 'compute it in float64 (model.astype("float64"), module.double()), or scale the samples down',
    )
