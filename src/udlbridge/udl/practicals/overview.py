"""The figures of the sources and ours beside them, engine by engine, as tables in a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from udlbridge.atomic import writing
from udlbridge.errors import OptionError
from udlbridge.texts import read_text
from udlbridge.udl.practicals.rows import BELOW, CLOSED_FORM, DIFFERENCES, PRINTED, SKIPPED, Row

START, END = "<!-- figures of {} -->", "<!-- end of figures -->"
WORDS = {CLOSED_FORM: "another computation", DIFFERENCES: "finite differences", SKIPPED: "the source"}


def comparison(results: Mapping[str, Sequence[Row]]) -> str:
    """A Markdown table of one practical: a line for every figure of its source, a column for every engine.

    Figures of the data alone, which no engine computes, stand in a table of their own. What the source does not show is
    counted in a sentence; where the source shows no figure that can be had here, a table shows that as well.

    Args:
        results: rows by the engine that computed them.

    Raises:
        OptionError: engines with different figures of the source, or no engine.
    """
    lists = {tuple((row.quantity, row.expected) for row in rows if row.of_source) for rows in results.values()}
    if len(lists) != 1:
        raise OptionError(
            f"{len(lists)} different lists of figures", allowed="the same figures from every engine", remedy="run all"
        )
    computed = {name: [row for row in rows if row.engine] for name, rows in results.items()}
    source = _table("source", {name: [row for row in rows if row.of_source] for name, rows in computed.items()})
    data = _of_data(next(iter(results.values())))
    other = {name: [row for row in rows if not row.of_source] for name, rows in computed.items()}
    parts = [source, data, "" if source else _table("held against", other), _counted(other)]
    return "\n\n".join(part for part in parts if part)


def _table(against: str, results: Mapping[str, Sequence[Row]]) -> str:
    """A line for every figure, with what it is held against and the figure of every engine; empty without figures."""
    lines = [
        f"| {_escaped(same[0].quantity)} | {_expected(same[0])} | {' | '.join(_figures(same))} |"
        for same in zip(*results.values(), strict=True)
    ]
    head = [f"| figure | {against} | {' | '.join(results)} |", f"|{'---|' * (2 + len(results))}"]
    return "\n".join([*head, *lines]) if lines else ""


def _of_data(rows: Sequence[Row]) -> str:
    """The figures of the data alone, which are the same with every engine; empty where there are none."""
    found = [row for row in rows if not row.engine]
    if not found:
        return ""
    lines = [f"| {_escaped(row.quantity)} | {_expected(row)} | {_figure(row)} |" for row in found]
    return "\n".join(["| figure of the data alone | source | here |", "|---|---|---|", *lines])


def _expected(row: Row) -> str:
    """What a figure is held against: the figure of its source, or in words."""
    if row.of_source:
        return row.shown(row.expected) + ("" if row.origin == PRINTED else "\\*")
    return f"below {row.expected:.4g}" if row.origin == BELOW else WORDS[row.origin]


def _figures(same: Sequence[Row]) -> list[str]:
    """One figure of every engine; of arrays whose worst entry is another one with each engine, how far that is off."""
    if len({f"{row.expected:.6g}" for row in same}) > 1:
        return [f"{abs(row.difference):.0e} off" + ("" if row.ok else " **differs**") for row in same]
    return [_figure(row) for row in same]


def _figure(row: Row) -> str:
    if row.origin == SKIPPED:
        return "skipped"
    return (row.shown(row.figure) if row.of_source else f"{row.figure:.6g}") + ("" if row.ok else " **differs**")


def _counted(results: Mapping[str, Sequence[Row]]) -> str:
    """How many figures are held against something else than the source, and how many of them hold."""
    if not any(results.values()):
        return ""
    held = {name: [row for row in rows if row.origin != SKIPPED] for name, rows in results.items()}
    counts = [f"{sum(row.ok for row in rows)} of {len(rows)} with {name}" for name, rows in held.items()]
    skipped = max(len(results[name]) - len(held[name]) for name in results)
    words = f"Further figures that hold: {', '.join(counts)}" + (f"; {skipped} skipped" if skipped else "")
    return f"{words}."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


def marked(name: str, text: str) -> str:
    """`text` between the marks of the practical `name`."""
    return f"{START.format(name)}\n{text}\n{END}"


def write(path: Path, tables: Mapping[str, str]) -> None:
    """Put every practical's table where its marks stand in the file `path`; the rest of the file stays as it is.

    Raises:
        OptionError: the file cannot be read, or has no marks for a practical.
    """
    page = _page(path)
    for name, text in tables.items():
        start, end = _span(path, page, name)
        page = page[:start] + marked(name, text) + page[end:]
    with writing(path, OptionError) as partial:
        partial.write_text(page, encoding="utf-8")


def check_page(path: Path, names: Iterable[str]) -> None:
    """Find out before the practicals run whether their tables can be put into the file `path`.

    Raises:
        OptionError: as `write`.
    """
    page = _page(path)
    for name in names:
        _span(path, page, name)


def _page(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise OptionError(
            f"{path} cannot be read ({error.strerror})", allowed="a text file in UTF-8", remedy="name another"
        ) from error


def _span(path: Path, page: str, name: str) -> tuple[int, int]:
    """Where the table of a practical stands in a page, with its marks."""
    marks = re.search(re.escape(START.format(name)) + ".*?" + re.escape(END), page, re.DOTALL)
    if marks is None:
        raise OptionError(
            f"{path} has no place for {name}",
            allowed=f"the lines {START.format(name)} and {END}",
            remedy="add them where the table should stand",
        )
    return marks.span()
