"""Samples with their classes, from files: to learn from, and to test on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from udlbridge.cli.fitting import read
from udlbridge.cli.labels import classes_of, read_labels
from udlbridge.cli.sample_files import Named
from udlbridge.cli.samples import taken
from udlbridge.texts import counted

if TYPE_CHECKING:
    import numpy as np

Labelled = tuple[Any, "np.ndarray", list[str]]
"""Samples, the class of each as a number from 0 on, and what the classes are called."""


def labelled(samples: Named, labels: Named, model: Any, *, cast: bool) -> Labelled:
    """Samples of a file and their classes. Raises as `read`, `read_labels` and `classes_of`."""
    found = read_labels(labels)  # before the samples, which a wrong name of a column would be in the way of
    x = read(samples, model, cast=cast, without=labels)
    length = len(next(iter(x.values()))) if isinstance(x, dict) else len(x)
    return x, *classes_of(found, labels, length)


def halves(
    learn: Labelled, test: Labelled | None, n: int | None, m: int | None, *, named: Named, several: bool = False
) -> tuple[Any, ...]:
    """Samples and classes to learn from and to test on, and what the classes are called.

    Without samples to test on, those after the first `n` (three quarters where it is None) are taken.

    Args:
        learn: samples to learn from.
        test: samples to test on.
        n: how many to learn from.
        m: how many to test on.
        named: where the classes to learn from are.
        several: whether there must be several classes to test on, in whatever order they come.

    Raises:
        InputError: more samples than there are, or none left to test on.
        DataError: test samples of a class that no sample to learn from has, or samples that are sorted by class.
    """
    import numpy as np

    from udlbridge.errors import DataError, InputError

    x, y, names = learn
    if test is not None:
        parts = (f"first {n} samples", "samples to test on", ", or learn from more of them: --train N")
    elif n is None and m is None:
        parts = ("first three quarters of the samples", "last quarter of the samples", ": the last quarter is held out")
    else:
        parts = ("samples to learn from", "samples to test on", ": those to test on come last")
    n = (len(y) if test is not None else len(y) - len(y) // 4) if n is None else n
    x_test, y_test, test_names = (taken(x, n, None), y[n:], names) if test is None else test
    m = len(y_test) if m is None else m
    if n > len(y) or m > len(y_test) or m < 1:
        raise InputError(
            f"{counted(n, 'sample')} to learn from and {m} to test on",
            allowed=f"at most {len(y)} in all" if test is None else f"at most {len(y)} and {len(y_test)}",
            remedy="ask for fewer: --train N --test M",
        )
    unknown = [name for name in test_names if name not in names]
    if unknown:
        raise DataError(f"test samples of class {unknown[0]}", allowed=", ".join(names), remedy="leave them out")
    order = np.array([names.index(name) for name in test_names])
    y_test = order[y_test[:m]]
    sorted_by_class = np.count_nonzero(np.diff(y)) < len(names)
    least = 2 if several or (test is None and m > 1 and sorted_by_class) else 1
    _check_classes(named, names, y[:n], y_test, parts, least)
    return taken(x, 0, n), y[:n], taken(x_test, 0, m), y_test, names


def _check_classes(
    named: Named, names: list[str], y: np.ndarray, y_test: np.ndarray, parts: tuple[str, str, str], least: int
) -> None:
    """Raise `DataError` for classes to test on that are not learned, or fewer than `least`; `parts` are the words."""
    import numpy as np

    from udlbridge.errors import DataError

    for part, present, enough in ((parts[0], y, 2), (parts[1], y_test, least)):
        found = np.unique(present)
        if len(found) < enough or (present is y and not np.isin(y_test, found).all()):
            raise DataError(
                f"{named}: among the {part} are {', '.join(names[i] for i in found)}",
                allowed=f"all classes to learn from, at least two{' of them to test on' if least > 1 else ''}",
                remedy=f"shuffle the samples and their labels{parts[2]}",
            )
