"""Amounts of memory as people write them, and as they are printed."""

from __future__ import annotations

import re

from udlbridge.errors import OptionError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(size: int | str) -> int:
    """Bytes in "2GB", "500 MB", "1.5GiB" or a number of bytes.

    Raises:
        OptionError: if it is not a positive amount.
    """
    text = str(size).strip().upper()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)", text)
    if match and match[2] in UNITS:
        amount = int(float(match[1]) * UNITS[match[2]])
        if amount > 0:
            return amount
    raise OptionError(
        f"an amount of memory {size!r}", allowed='a number and a unit, as "2GB" or "500MB"', remedy="correct it"
    )


def show_bytes(amount: float) -> str:
    """`amount` bytes with three digits and a decimal unit: "7.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
