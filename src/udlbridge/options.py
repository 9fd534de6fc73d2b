"""Settings that are numbers, checked before anything is computed."""

from __future__ import annotations

import math
import operator

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
