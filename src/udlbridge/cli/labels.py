"""Labels at the command line: the classes of samples, or a column of theirs that is none of their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from udlbridge.cli.sample_files import Named, NamedArray, read_array
from udlbridge.texts import counted

if TYPE_CHECKING:
    import numpy as np

labels_option = click.option(
    "--labels", "y_file", type=NamedArray(), metavar="FILE[:KEY]", help="Their classes, numbers or words."
)


LEFT_OUT = "The column of the samples' file that holds classes, which is left out."
"""What --labels is for in commands that need no classes."""


def check_left_out(samples: object, labels: Named | None) -> None:
    """Find out whether --labels names a part of the file with the samples.

    Raises:
        UsageError: it is of another file, and nothing here asks for classes.
        DataError: the file has no such column or array.
    """
    if labels is None:
        return
    same = isinstance(samples, Named) and samples.path.resolve() == labels.path.resolve()
    if not same:
        raise click.UsageError(
            "--labels names what is left out of --samples FILE, as --labels FILE:COLUMN: no classes are needed here"
        )
    read_array(labels, labels=True)


def check_together(samples: Named | None, labels: Named | None, after: str = "") -> None:
    """Raise `UsageError` for samples without labels or labels without samples; `after` is the end of their options."""
    if (samples is None) != (labels is None):
        given, missing = ("--samples", "--labels") if labels is None else ("--labels", "--samples")
        raise click.UsageError(
            f"{given}{after} wants {missing}{after}: samples and their classes go together, without both it is MNIST"
        )


def read_labels(named: Named) -> np.ndarray:
    """The label of each sample (n,): words, or finite numbers.

    Raises:
        DataError: as `read_array`; or a label that is no class: NaN, infinity, nothing.
        ShapeError: not one label a sample.
    """
    import numpy as np

    from udlbridge.errors import DataError, ShapeError

    found = read_array(named, labels=True)
    found = found.reshape(-1) if found.ndim == 2 and 1 in found.shape else found
    if found.ndim != 1:
        raise ShapeError(
            f"{named} has labels of shape {found.shape}",
            allowed="one for each sample, (n,)",
            remedy="name the array or the column after a colon, as --labels FILE:KEY",
        )
    if found.dtype.kind == "O":  # as tables have words
        missing = np.array([value is None or value != value for value in found])
        found = found.astype(str)
    else:
        missing = ~np.isfinite(found) if found.dtype.kind in "fc" else np.zeros(len(found), dtype=bool)
    if missing.any():
        place = int(np.flatnonzero(missing)[0])
        raise DataError(
            f"{named}: label {place} is {found[place]}",
            allowed="a class for each sample",
            remedy="leave such samples out, or give them a class",
        )
    if found.dtype.kind == "f" and (found == np.round(found)).all() and (np.abs(found) < 2**53).all():
        return found.astype(np.int64)  # 3.0 is called 3
    return found


def classes_of(labels: np.ndarray, named: Named, n: int) -> tuple[np.ndarray, list[str]]:
    """The class of each of the first `n` samples as a number from 0 on (n,), and what the classes are called.

    Raises:
        ShapeError: fewer labels than samples, or a single class.
    """
    import numpy as np

    from udlbridge.errors import ShapeError

    if len(labels) < n:
        raise ShapeError(
            f"{named} has labels of shape {labels.shape} for {counted(n, 'sample')}",
            allowed="one for each sample, (n,)",
            remedy="name the array or the column after a colon, as --labels FILE:KEY",
        )
    names, classes = np.unique(labels[:n], return_inverse=True)
    if len(names) < 2:
        raise ShapeError(f"{named} has a single class, {names[0]}", allowed="at least two", remedy="take other samples")
    return classes, [str(name) for name in names]


def chosen_classes(words: str, names: list[str], named: Named) -> list[int]:
    """The numbers of the classes that are named, with commas.

    Raises:
        OptionError: fewer than two, or one that there is not.
    """
    from udlbridge.errors import OptionError
    from udlbridge.texts import nearest

    parts = list(dict.fromkeys(part.strip() for part in words.split(",")))
    unknown = [part for part in parts if part not in names]
    if unknown or len(parts) < 2:
        raise OptionError(
            f"--digits {words}" + (f": {named} has no class {unknown[0]!r}" if unknown else ""),
            allowed=f"at least two of {', '.join(names)}, with commas",
            remedy=f"choose some{nearest(unknown[0] if unknown else None, names)}; without --digits all are taken",
        )
    return [names.index(part) for part in parts]
