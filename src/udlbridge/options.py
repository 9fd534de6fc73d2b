"""Settings that are numbers, checked before anything is computed."""

from __future__ import annotations

import math

import numpy as np

from udlbridge.errors import OptionError


def checked_count(what: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int of at least `least`, and of at most `most` if there is such a limit.

    Raises:
        OptionError: otherwise.
    """
    if (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and value >= least
        and (most is None or value <= most)
    ):
        return int(value)
    allowed = f"a whole number, at least {least}" + ("" if most is None else f", at most {most}")
    raise OptionError(f"{what}={value!r}", allowed=allowed, remedy=f"correct {what}")


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
