"""Where torch computes, with how many threads, and how precisely on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from udlbridge.backends.threads import Pool, ThreadLimit
from udlbridge.errors import OptionError
from udlbridge.options import brief


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
        raise OptionError(
            f"device={brief(device)}", allowed=", ".join(present) + " on this machine", remedy="choose one"
        )
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


PRECISIONS = ("none", "ieee", "tf32", "bf16")
"""To what torch may round float32 before it multiplies; the first two leave it as it is."""

OLDER = {"highest": "none", "high": "tf32", "medium": "bf16"}
"""What torch before 2.9 calls them."""


def _exchange_products(precision: int) -> int:
    before = _products()
    if max(precision, before) < 2:
        return before
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = PRECISIONS[precision]
    else:
        torch.set_float32_matmul_precision({word: older for older, word in OLDER.items()}[PRECISIONS[precision]])
    return before


def _products() -> int:
    """To what matrix products on a GPU may round, as its place in `PRECISIONS`."""
    setting = torch.backends.cuda.matmul
    if hasattr(setting, "fp32_precision"):
        return PRECISIONS.index(setting.fp32_precision)
    return PRECISIONS.index(OLDER[torch.get_float32_matmul_precision()])


def _exchange_convolutions(precision: int) -> int:
    rounded, setting = precision >= 2, torch.backends.cudnn
    try:
        # The older of torch's two words comes first: a forward may ask for it, which fails where the newer was used.
        before, setting.allow_tf32 = setting.allow_tf32, rounded
        return 2 if before else 0
    except RuntimeError:  # the caller used the newer one
        newer: Any = setting
        before = newer.conv.fp32_precision
        newer.conv.fp32_precision = "tf32" if rounded else "ieee"
        return PRECISIONS.index(before)


def _exchange_cudnn(enabled: int) -> int:
    before, torch.backends.cudnn.enabled = torch.backends.cudnn.enabled, bool(enabled)
    return int(before)


_HAS_CUDA = torch.version.cuda is not None

# Settings of the whole process, which are lent as numbers of threads are.
_PRECISION = ThreadLimit(lambda: [Pool("products", _exchange_products), Pool("convolutions", _exchange_convolutions)])
_CUDNN = ThreadLimit(lambda: [Pool("cuDNN", _exchange_cudnn)])


def float32_as_allowed() -> AbstractContextManager[None]:
    """Convolutions on a GPU as precise as matrix products: rounded to TF32 where the caller allows it for both alone.

    By itself torch rounds what convolutions get, and what products get not.
    """
    return _PRECISION.to(0) if _HAS_CUDA and _products() < 2 else nullcontext()


def full_float32() -> AbstractContextManager[None]:
    """Nothing is rounded on a GPU, whatever is allowed: for comparisons that go down to rounding."""
    return _PRECISION.to(0) if _HAS_CUDA else nullcontext()


def without_cudnn() -> AbstractContextManager[None]:
    """torch's own layers in the place of cuDNN's."""
    return _CUDNN.to(0)
