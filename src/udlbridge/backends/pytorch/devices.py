"""Where torch computes, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from udlbridge.errors import OptionError


def checked_device(device: str) -> str:
    """`device`, if torch can use it here.

    Raises:
        OptionError: unknown or absent device.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    if device.split(":")[0] not in present:
        raise OptionError(f"device={device!r}", allowed=", ".join(present) + " on this machine", remedy="choose one")
    return device


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """torch with `count` threads; the old number comes back afterwards."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
