"""Settings, checked before anything is computed, and kept as Python's own numbers, truth values and words.

NumPy's numbers mean what Python's mean, arrays without axes included. They are turned into Python's here, so that
whatever holds a setting can be written as JSON, and so that a float64 scalar does not widen a float32 computation.
"""

from __future__ import annotations

import math
import operator
import re
import secrets
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from udlbridge.errors import OptionError
from udlbridge.texts import kind_of, nearest

LONGEST = 100
"""Characters of a value in an error, at most."""


def _scalar(value: object) -> object:
    """What an array without axes holds, as Python's object; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def brief(value: object) -> str:
    """`value` for an error: its repr, or where that is long or fails, as of an array or a network, what it is.

    Of a long word it is the beginning.
    """
    try:
        value = _scalar(value)
        text = repr(value)
    except Exception:  # somebody's own class: the error to come is about the option, not about its text
        return kind_of(value)
    if len(text) <= LONGEST and "\n" not in text:
        return text
    return f"{value[: LONGEST // 2]!r}..." if type(value) is str else kind_of(value)


def whole(value: object) -> int | None:
    """`value` as an int if it is an integer, of whatever library, else None, also for a truth value."""
    value = _scalar(value)
    if isinstance(value, bool) or hasattr(value, "ndim"):  # an array has axes here, even if it has a single entry
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def real(value: object) -> int | float | None:
    """`value` as an int or float of Python if it is a real number, of whatever library, else None."""
    value = _scalar(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def flag(value: object) -> bool | None:
    """`value` as a bool if it is a truth value, of whatever library, else None; 0 and 1 are numbers."""
    value = _scalar(value)
    return value if isinstance(value, bool) else None


def checked_count(what: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int, of at least `least`, and of at most `most` if that is given.

    Raises:
        OptionError: otherwise.
    """
    number = whole(value)
    if number is None or number < least or (most is not None and number > most):
        allowed = f"a whole number, at least {least}" + ("" if most is None else f", at most {most}")
        raise OptionError(f"{what}={brief(value)}", allowed=allowed, remedy=f"correct {what}")
    return number


def checked_seed(seed: object) -> int:
    """`seed` as an int of at least 0; None draws one anew, so that no input can be made for it beforehand.

    Raises:
        OptionError: anything else.
    """
    if seed is None:
        return secrets.randbits(32)
    return checked_count("seed", seed, 0)


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
    return _checked_real(what, value, "a finite number above 0", above=0.0)


def checked_not_negative(what: str, value: object) -> float:
    """`value` as a float that is finite and not negative.

    Raises:
        OptionError: otherwise.
    """
    return _checked_real(what, value, "a finite number, at least 0", least=0.0)


def _checked_real(
    what: str, value: object, allowed: str, *, least: float = -math.inf, above: float = -math.inf
) -> float:
    try:
        found = real(value)
        number = math.nan if found is None else float(found)
    except OverflowError:  # an integer, or a fraction, that no float can hold
        number = math.inf
    if math.isfinite(number) and number >= least and number > above:
        return number
    raise OptionError(f"{what}={brief(value)}", allowed=allowed, remedy=f"correct {what}")


def checked_flag(what: str, value: object) -> bool:
    """`value` as a bool.

    Raises:
        OptionError: anything but a truth value: a word would count as true, whatever it says.
    """
    found = flag(value)
    if found is None:
        raise OptionError(f"{what}={brief(value)}", allowed="True or False", remedy=f"correct {what}")
    return found


def checked_choice(what: str, value: Any, choices: Iterable[str]) -> str:
    """`value`, which is one of the words.

    Raises:
        OptionError: otherwise.
    """
    known = list(choices)
    if isinstance(value, str) and value in known:
        return str(value)
    raise OptionError(
        f"{what}={brief(value)}", allowed=", ".join(known), remedy=f"choose one of them{nearest(value, known)}"
    )


def checked_list(what: str, value: object, allowed: str, remedy: str) -> list[Any]:
    """The entries of a list, a tuple, or whatever else has some; `allowed` and `remedy` are for the error.

    Raises:
        OptionError: a word, or nothing that has entries.
    """
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return list(value)  # type: ignore[call-overload]
    except TypeError:
        raise OptionError(f"{what}={brief(value)}", allowed=allowed, remedy=remedy) from None


def checked_mapping(what: str, value: object) -> dict[str, Any]:
    """The entries of a mapping by name; of None, none.

    Raises:
        OptionError: anything else.
    """
    if value is None or (isinstance(value, Mapping) and all(isinstance(name, str) for name in value)):
        return dict(value or {})
    raise OptionError(f"{what}={brief(value)}", allowed="a dict, by name", remedy=f'as {what}={{"name": ...}}')


def checked_shape(what: str, value: object) -> tuple[int, ...]:
    """The shape of one sample, as ints of at least 1.

    Raises:
        OptionError: not a tuple or list of such numbers.
    """
    sizes = [whole(size) for size in value] if isinstance(value, tuple | list) else [None]
    found = tuple(size for size in sizes if size is not None and size >= 1)
    if len(found) != len(sizes):
        raise OptionError(
            f"{what}={brief(value)}", allowed="whole numbers of at least 1, in a tuple", remedy=f"as {what}=(1, 28, 28)"
        )
    return found


UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


MOST_BYTES = 2**63
"""More than any machine has; what is larger is a slip, and no number that arrays are counted in."""


def parse_bytes(size: int | str) -> int:
    """Bytes in "2GB", "500 MB", "1.5GiB" or a number of bytes.

    Raises:
        OptionError: if it is not a positive amount.
    """
    try:
        number = real(size)
    except OverflowError:  # a fraction that no float can hold
        number = None
    if number is None and isinstance(size, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?B?)", size.strip().upper())
        number = float(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else None
    if number is not None and 1 <= number < MOST_BYTES:
        return int(number)
    raise OptionError(
        f"an amount of memory {brief(size)}", allowed='a number and a unit, as "2GB" or "500MB"', remedy="correct it"
    )


def show_bytes(amount: float) -> str:
    """`amount` bytes with three digits and a decimal unit: "7.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def show_seconds(seconds: float) -> str:
    """A duration with three digits, in the largest unit that it has at least two of: "33.1 s", "79.8 days"."""
    unit, size = "s", 1.0
    for larger, least in (("min", 60.0), ("h", 3600.0), ("days", 86400.0), ("years", 365.25 * 86400.0)):
        if seconds >= 2 * least:
            unit, size = larger, least
    return f"{seconds / size:.3g} {unit}"
