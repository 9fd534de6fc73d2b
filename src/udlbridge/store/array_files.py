"""Kernels as .npy files: for what fits into memory, checked before anything is computed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from udlbridge import atomic
from udlbridge.backends.reduction import Outputs, checked_reduction
from udlbridge.errors import OptionError, StoreError
from udlbridge.kernels.ntk import ntk
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import output_size
from udlbridge.networks.model import Model
from udlbridge.options import show_bytes
from udlbridge.store.room import check_room


def check_fits(
    model: Model | ForeignNetwork, shape: tuple[int, ...], size: tuple[int, int], outputs: Outputs, target: Path
) -> None:
    """Find out before anything is computed whether the array fits: into memory, and on the disk of `target`.

    Args:
        model: the network.
        shape: of one sample.
        size: the numbers of samples of the rows and of the columns.
        outputs: as for `ntk`.
        target: the file.

    Raises:
        OptionError, StoreError: it does not.
    """
    needed = size[0] * size[1] * model.dtype.itemsize
    for axis in checked_reduction(outputs, output_size(model, shape)).trailing:
        needed *= axis
    free = psutil.virtual_memory().available
    if needed > free:
        raise OptionError(
            f"an array of {show_bytes(needed)}",
            allowed=f"{show_bytes(free)}, the memory that is free",
            remedy=f"write a store, which may be of any size: --out {target.with_suffix('.zarr')}",
        )
    check_room(target.absolute().parent, needed, "free some space, or choose another disk")


def write_array(model: Model | ForeignNetwork, x: np.ndarray, target: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Compute the kernel with `options` of `ntk` and write it to a .npy file, whole or not at all; returns figures.

    Raises:
        StoreError: the disk is full or refuses.
    """
    start = time.perf_counter()
    kernel = ntk(model, x, **options)
    seconds = time.perf_counter() - start
    with atomic.writing(target, StoreError) as partial, partial.open("wb") as file:
        np.save(file, kernel)
    return {"shape": kernel.shape, "dtype": kernel.dtype.name, "bytes": kernel.nbytes, "seconds": seconds}
