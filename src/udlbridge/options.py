"""What several functions ask of their options."""

from __future__ import annotations

import operator

from udlbridge.errors import OptionError


def whole_number(name: str, value: object, least: int) -> int:
    """`value` as an int, of whatever integer type it is.

    Raises:
        OptionError: it is no integer, or less than `least`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise OptionError(
            f"{name}={value!r}", allowed=f"an integer of at least {least}", remedy="leave it out, or correct it"
        )
    return number


def thread_count(threads: object) -> int | None:
    """`threads` as an int of at least 1; None leaves the number of threads alone.

    Raises:
        OptionError: anything else.
    """
    return None if threads is None else whole_number("threads", threads, 1)
