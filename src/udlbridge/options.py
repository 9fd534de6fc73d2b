"""Settings that are numbers, checked before anything is computed."""

from __future__ import annotations

import math
import operator
import re

import numpy as np

from udlbridge.errors import OptionError


def checked_count(what: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int, of whatever integer type it is, of at least `least`, and of at most `most` if that is given.

    Raises:
        OptionError: otherwise.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        allowed = f"a whole number, at least {least}" + ("" if most is None else f", at most {most}")
        raise OptionError(f"{what}={value!r}", allowed=allowed, remedy=f"correct {what}")
    return number


def thread_count(threads: object) -> int | None:
    """`threads` as an int of at least 1; None leaves the number of threads alone.

    Raises:
        OptionError: anything else.
    """
    return None if threads is None else checked_count("threads", threads, 1)


def checked_positive(what: str, value: object) -> float:
    """`value` as a float that is finite and positive.

    Raises:
        OptionError: otherwise.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number > 0:
            return number
    raise OptionError(f"{what}={value!r}", allowed="a finite number above 0", remedy=f"correct {what}")


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
