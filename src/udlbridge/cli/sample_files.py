"""Samples and labels in files, by the ending of the name: NumPy's, safetensors, CSV, Parquet."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.targets import UserPath

if TYPE_CHECKING:
    import numpy as np

ENDINGS = (".npy", ".npz", ".csv", ".parquet", ".safetensors")


@dataclass(frozen=True)
class Named:
    """A file, and the array or column in it that is meant; None: the only one, or all columns."""

    path: Path
    key: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.key is None else f"{self.path}:{self.key}"


class NamedArray(UserPath):
    """A file, with the name of an array or column after a colon where it holds several: `data.npz:images`."""

    name = "FILE[:KEY]"

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The file, which is there, and the key."""
        path, colon, key = str(value).rpartition(":")
        if colon and path.lower().endswith(".npy") and not os.path.lexists(value):
            self.fail(f"{path} holds one array, which has no name: leave out {colon + key!r}", param, ctx)
        if colon and path.lower().endswith(ENDINGS[1:]) and key:
            return Named(super().convert(path, param, ctx), key)
        return Named(super().convert(value, param, ctx))


def read_array(named: Named, *, several: bool = False, without: Named | None = None, labels: bool = False) -> Any:
    """The array that is named; for `several` inputs those of a .npz or .safetensors file by name.

    Args:
        named: the file, and a key where it holds several arrays or is a table.
        several: whether a mapping of arrays will do.
        without: labels, whose column or array is left out where they are in the same file.
        labels: whether it is these that are read: a single column of a table.

    Raises:
        DataError: it is not of one of the formats, holds several arrays, has no such key, or cannot be read.
    """
    from udlbridge.errors import DataError

    kind = named.path.suffix.lower()
    left = without.key if without is not None and without.path.resolve() == named.path.resolve() else None
    if kind == ".npy":
        return load_array(named.path, "samples as numpy.save writes them")
    if kind in (".npz", ".safetensors"):
        found = _archive(named.path, kind)
        if named.key is None:
            found = {name: value for name, value in found.items() if name != left}
        return found if named.key is None and several else _entry(named, found)
    if kind not in ENDINGS:
        raise DataError(
            f"{named.path} ends in {kind or 'nothing'!r}", allowed=", ".join(ENDINGS), remedy="name the format so"
        )
    table = _csv(named.path) if kind == ".csv" else _parquet(named.path)
    if named.key is not None or labels:
        return _entry(named, table, "column")
    return _numbers(named.path, {name: column for name, column in table.items() if name != left})


def _archive(path: Path, kind: str) -> Mapping[str, np.ndarray]:
    if kind == ".npz":
        return load_arrays(path, "samples as numpy.savez writes them")
    from udlbridge.errors import DataError
    from udlbridge.networks.files import read_safetensors

    return read_safetensors(path, "data", DataError)[1]


def _entry(named: Named, found: Mapping[str, np.ndarray], kind: str = "array") -> np.ndarray:
    """The array or column of that key, or the only one."""
    from udlbridge.errors import DataError
    from udlbridge.texts import nearest

    if named.key is not None and named.key in found:
        return found[named.key]
    if named.key is None and len(found) == 1:
        return next(iter(found.values()))
    names = ", ".join(found)
    if named.key is None:
        keys = list(found) or ["name"]
        shown = keys[-1 if kind == "column" else 0]  # tables often have labels at their end
        remedy = f"name one after a colon, as {named.path}:{shown}"
        raise DataError(f"{named.path} holds {len(found)} {kind}s", allowed=names, remedy=remedy)
    raise DataError(
        f"{named.path} has no {kind} {named.key!r}",
        allowed=names,
        remedy=f"choose one of them{nearest(named.key, found)}",
    )


def _csv(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file by their headings; without a line of headings by their numbers from 0."""
    import numpy as np

    from udlbridge.errors import DataError
    from udlbridge.regular import check_readable

    try:
        check_readable(path, links=True)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a readable CSV file ({error})", allowed="text in UTF-8", remedy="write it again"
        ) from error
    if not rows:
        raise DataError(f"{path} is empty", allowed="a line for each sample", remedy="write it again")
    # Headings are a line without a single number.
    headed = len(rows) > 1 and not any(map(_is_number, rows[0]))
    names = [name.strip() for name in rows[0]] if headed else [str(index) for index in range(len(rows[0]))]
    first = 2 if headed else 1
    for line, row in enumerate(rows[headed:], start=first):
        if len(row) != len(names):
            raise DataError(
                f"{path}: line {line} has {len(row)} values",
                allowed=f"{len(names)}, as the first line",
                remedy="correct it",
            )
    columns = np.array(rows[headed:], dtype=str).T
    return {name: _typed(column) for name, column in zip(names, columns, strict=True)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _typed(column: np.ndarray) -> np.ndarray:
    """Whole numbers, else real ones, else the words as they are."""
    for kind in (int, float):
        try:
            return column.astype(kind)
        except (ValueError, OverflowError):
            continue
    return column


def _parquet(path: Path) -> dict[str, np.ndarray]:
    from udlbridge.errors import DataError

    try:
        import pandas

        table = pandas.read_parquet(path)
    except ImportError as error:
        raise DataError(
            f"{path} needs pandas and pyarrow",
            allowed="an installation that has both",
            remedy="pip install 'udlbridge[parquet]', or pandas and pyarrow",
        ) from error
    except Exception as error:  # a foreign reader may raise anything when a file is damaged
        raise DataError(f"{path} is not a readable Parquet file ({error})", remedy="write it again") from error
    return {str(name): table[name].to_numpy() for name in table.columns}


def _numbers(path: Path, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Columns side by side (n, d), of numbers alone."""
    import numpy as np

    from udlbridge.errors import DataError

    words = [name for name, column in columns.items() if column.dtype.kind not in "iufb"]
    if words or not columns:
        raise DataError(
            f"{path}: column {words[0]!r} is no column of numbers" if words else f"{path} has no other column",
            allowed="numbers in every column of samples",
            remedy=f"leave it out, as labels are: --labels {path}:{words[0]}" if words else "name a table with numbers",
        )
    return np.stack(list(columns.values()), axis=1)


def _check_objects(path: Path, error: Exception) -> None:
    """Raise `DataError` where the error is NumPy's of a whole file of Python objects, as words often are."""
    from udlbridge.errors import DataError

    if re.search("Python objects|Object arrays", str(error)):
        raise DataError(
            f"{path} holds Python objects, which could execute code",
            allowed="numbers, or words as text of NumPy's",
            remedy="save them as such, words by numpy.save(path, y.astype(str))",
        ) from error


def load_array(path: Path, allowed: str, *, mapped: bool = False) -> np.ndarray:
    """The array of a .npy file, as a memory map if `mapped`.

    Raises:
        DataError: the file is not a .npy file, or cannot be read.
    """
    import numpy as np

    from udlbridge.errors import DataError
    from udlbridge.regular import check_readable

    try:
        # As a map first: that the file is as large as its header says is then known before memory is taken for it.
        check_readable(path, links=True)
        with warnings.catch_warnings(action="ignore"):  # of sizes that overflow
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray) and not mapped:
            found = np.array(found)
    except Exception as error:  # NumPy reads the header as Python's text: a damaged one raises whatever that does
        _check_objects(path, error)
        raise DataError(
            f"{path} is not a .npy file ({error})", allowed=allowed, remedy="write it again: it may be truncated"
        ) from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} holds several arrays", allowed=allowed, remedy="save the one array with numpy.save")
    return found


def load_arrays(path: Path, allowed: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name.

    Raises:
        DataError: the file is not a .npz file, cannot be read, or unpacks to far more than it is.
    """
    import numpy as np

    from udlbridge.errors import DataError
    from udlbridge.networks.archives import check_archive
    from udlbridge.regular import check_readable

    try:
        check_readable(path, links=True)
        check_archive(path, DataError)
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except DataError:
        raise
    except Exception as error:  # as of a .npy file
        _check_objects(path, error)
        raise DataError(
            f"{path} is not a .npz file ({error})", allowed=allowed, remedy="write it again, with numpy.savez"
        ) from error


def parsed_shape(text: str) -> tuple[int, ...]:
    """The sizes in "3,32,32". Raises `ShapeError` for anything else."""
    from udlbridge.errors import ShapeError

    sizes = text.split(",")
    if not all(re.fullmatch("[0-9]{1,9}", size.strip()) and int(size) > 0 for size in sizes):
        raise ShapeError(f"--shape {text}", allowed="positive numbers with commas", remedy="as --shape 3,32,32")
    return tuple(int(size) for size in sizes)
