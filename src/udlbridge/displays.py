"""How results show themselves: a few lines in a shell, a table in a notebook, a data frame, a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from udlbridge.texts import counted, kind_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

LINES = 10
"""Lines of a `repr`, at most."""

COLUMNS = 160
"""Characters of a line of a `repr`, at most."""

ROWS = 60
"""Rows of a table in a notebook, at most; `to_frame` has all."""

Row = Mapping[str, Any]


class Displayed:
    """A result with a short `repr`, and a table in notebooks. Dataclasses need `repr=False`, or theirs goes first.

    A class says what it has: `__str__` for the text, `as_rows` for a table. Without `__str__`, its fields are listed.
    """

    __slots__ = ()

    def as_rows(self) -> Sequence[Row]:
        """The rows of a table, each with the same headings; none where there is no table."""
        return ()

    def headline(self) -> str:
        """The line over the table in a notebook: the first of the text, or another one that says what was found."""
        return repr(self).splitlines()[0]

    def __repr__(self) -> str:
        listed = type(self).__str__ is object.__str__  # which would come back here
        return shortened(_listed(self) if listed else str(self))

    def _repr_html_(self) -> str:
        rows = self.as_rows()
        if not rows:
            return f"<pre>{escape(repr(self))}</pre>"
        left = f"<p>and {counted(len(rows) - ROWS, 'row')} more: to_frame() has all</p>" if len(rows) > ROWS else ""
        name, head = type(self).__name__, self.headline()
        head = head if head.startswith(name) else f"{name}: {head}"
        return f"<p>{escape(head)}</p>{html_table(rows[:ROWS])}{left}"

    def to_frame(self) -> pandas.DataFrame:
        """The table as a DataFrame of pandas.

        Raises:
            OptionError: there is no table, or pandas is not installed.
        """
        from udlbridge.errors import OptionError

        rows = self.as_rows()
        if not rows:
            raise OptionError(f"{kind_of(self)} has no table", allowed="results with rows", remedy="print it")
        try:
            frames = import_module("pandas")
        except ImportError as error:
            raise OptionError(
                "pandas is not installed", allowed="an installation with it", remedy="pip install pandas"
            ) from error
        return frames.DataFrame(list(rows))


class Lines(Sequence[Row]):
    """Rows of a long table, each made when it is asked for: a notebook shows the first ones alone."""

    def __init__(self, count: int, row: Callable[[int], Row]) -> None:
        self._count, self._row = count, row

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        chosen = range(self._count)[index]
        return [self._row(one) for one in chosen] if isinstance(chosen, range) else self._row(chosen)


def output_lines(outputs: Mapping[str, np.ndarray], **shared: np.ndarray) -> Lines:
    """Outputs (n, O), or (T, n, O), as a row for each sample and place in T, a column for each of the O.

    Args:
        outputs: by the name of their samples, as "test".
        shared: a column of its own each, (T,).
    """
    tables = {name: values.reshape(-1, *values.shape[-2:]) for name, values in outputs.items()}
    ends = np.cumsum([len(table) * table.shape[1] for table in tables.values()])

    def row(index: int) -> Row:
        which = int(np.searchsorted(ends, index, side="right"))
        name = list(tables)[which]
        table = tables[name]
        place, sample = divmod(index - (int(ends[which - 1]) if which else 0), table.shape[1])
        heads = {"samples": name, **{head: column[place] for head, column in shared.items()}, "sample": sample}
        return {**heads, **{f"output {number}": value for number, value in enumerate(table[place, sample])}}

    return Lines(int(ends[-1]), row)


def deviations(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard deviations (m, O), or (m, 1) where outputs have the same, from what `mean_lines` takes."""
    samples, outputs = len(mean), mean[0].size if len(mean) else 1
    size = samples * (outputs if covariance.ndim == 4 else 1)
    variances = np.diagonal(covariance.reshape(size, size)).reshape(samples, -1)
    return np.sqrt(np.maximum(variances, 0))  # which rounding may take below zero


def mean_lines(mean: np.ndarray, covariance: np.ndarray | None) -> Lines:
    """A row for each test sample: the mean (m, O) of each output, and the standard deviation.

    Args:
        mean: (m, O), or (m,) where the targets came without an axis of outputs.
        covariance: (m, m), the same for every output, or (m, O, m, O); None leaves it out.
    """
    mean = mean.reshape(len(mean), -1)
    spread = None if covariance is None else deviations(mean, covariance)

    def row(index: int) -> Row:
        found = {"sample": index, **{f"output {number}": value for number, value in enumerate(mean[index])}}
        if spread is not None:
            one = spread.shape[1] == 1
            found |= {"+-" if one else f"+- {number}": value for number, value in enumerate(spread[index])}
        return found

    return Lines(len(mean), row)


def scalars(value: Any) -> dict[str, Any]:
    """The numbers and words among the fields of a result, as a row: those of several results make a table."""
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: one for name, one in found.items() if one is None or isinstance(one, bool | int | float | str)}


def html_table(rows: Sequence[Row], *, caption: str = "") -> str:
    """The rows as a table of HTML; whatever is in them is text."""
    heads = list(rows[0])
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(shown(row[head]))}</td>" for head in heads) + "</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def shown(value: Any) -> str:
    """A cell as text: numbers with four digits, shapes as 3 x 32 x 32, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, tuple) and all(isinstance(size, int) for size in value):
        return " x ".join(map(str, value)) if value else "()"
    return str(value)


def shortened(text: str) -> str:
    """At most `LINES` lines of at most `COLUMNS` characters; what is left out is said."""
    lines = [line if len(line) <= COLUMNS else line[: COLUMNS - 4] + " ..." for line in text.splitlines()]
    if len(lines) > LINES:
        # The last lines stay: a verdict stands there.
        lines = [*lines[: LINES - 3], f"... {len(lines) - LINES + 1} lines more: print it", *lines[-2:]]
    return "\n".join(lines)


def _listed(value: Any) -> str:
    """The class and its fields, one a line."""
    names = [field.name for field in fields(value)]
    width = max(map(len, names), default=0)
    return "\n".join([type(value).__name__, *(f"  {name:<{width}}  {_brief(getattr(value, name))}" for name in names)])


def _brief(value: Any) -> str:
    """A field in a few words: of an array its shape and dtype."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"array {value.shape} {value.dtype}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(map(str, value)) + "}"
    if isinstance(value, tuple | list) and len(value) > 6:
        return f"{len(value)} items"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).splitlines()[0] if str(value) else ""


def draw(drawer: str, ax: Axes | None, *what: Any, **options: Any) -> Axes:
    """Let `drawer` of `udlbridge.plots`, as "kernels:draw_spectrum", draw on `ax`, or on a new figure where it is None.

    Drawing stands above results and is loaded by its name when a picture is asked for, as engines are.
    """
    module, _, function = drawer.partition(":")
    plots = import_module(f"udlbridge.plots.{module}")
    if ax is None:
        from matplotlib import pyplot

        style = import_module("udlbridge.plots.style")
        with pyplot.rc_context(style.settings()):
            # As "constrained", but that a square map stands in the middle.
            _, ax = pyplot.subplots(figsize=style.SIZE, dpi=style.resolution(style.SIZE[0]), layout="compressed")
            drawn: Axes = getattr(plots, function)(ax, *what, **options)
            style.make_room(drawn)
            return drawn
    return getattr(plots, function)(ax, *what, **options)
