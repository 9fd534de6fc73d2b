"""Where torch computes, and with how many threads."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from udlbridge.backends.threads import Pool, ThreadLimit
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


def _exchange(count: int) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


# Each thread has a number, and one that is new to torch takes the number that was set last, in whatever thread. So what
# it finds there while others are inside is theirs: the one to put back is that from before the first caller.
_LIMIT = ThreadLimit(lambda: [Pool("torch", _exchange, by_thread=True)])


def blas_threads(count: int | None) -> AbstractContextManager[None]:
    """torch with `count` threads; the old number comes back afterwards. None changes nothing."""
    return _LIMIT.to(count)
