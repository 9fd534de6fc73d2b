"""The figures of the sources and ours beside them, engine by engine, as tables in a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from udlbridge.atomic import writing
from udlbridge.errors import OptionError
from udlbridge.texts import read_text
from udlbridge.udl.practicals.rows import PRINTED, SKIPPED, Row

START, END = "<!-- figures of {} -->", "<!-- end of figures -->"


def comparison(results: Mapping[str, Sequence[Row]]) -> str:
    """A Markdown table of one practical: a line for every figure of its source, a column for every engine.

    What the source does not show is counted in a sentence below it.

    Args:
        results: rows by the engine that computed them.

    Raises:
        OptionError: engines with different figures of the source, or no engine.
    """
    of_source = [[row for row in rows if row.of_source] for rows in results.values()]
    lists = {tuple((row.quantity, row.expected) for row in rows) for rows in of_source}
    if len(lists) != 1:
        raise OptionError(
            f"{len(lists)} different lists of figures", allowed="the same figures from every engine", remedy="run all"
        )
    lines = [f"| figure | source | {' | '.join(results)} |", f"|{'---|' * (2 + len(results))}"]
    for same in zip(*of_source, strict=True):
        row = same[0]
        where = "" if row.origin == PRINTED else "\\*"
        ours = [each.shown(each.figure) + ("" if each.ok else " **differs**") for each in same]
        lines.append(f"| {_escaped(row.quantity)} | {row.shown(row.expected)}{where} | {' | '.join(ours)} |")
    return "\n".join([*(lines if len(lines) > 2 else []), *_further(results)])


def _further(results: Mapping[str, Sequence[Row]]) -> list[str]:
    """How many figures are held against something else than the source, and how many of them hold."""
    further = {name: [row for row in rows if not row.of_source] for name, rows in results.items()}
    held = {name: [row for row in rows if row.origin != SKIPPED] for name, rows in further.items()}
    if not any(further.values()):
        return []
    counts = [f"{sum(row.ok for row in rows)} of {len(rows)} with {name}" for name, rows in held.items()]
    skipped = max(len(further[name]) - len(held[name]) for name in results)
    words = f"Further figures that hold: {', '.join(counts)}" + (f"; {skipped} skipped" if skipped else "")
    return ["", f"{words}."]


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
    try:
        page = read_text(path)
    except OSError as error:
        raise OptionError(
            f"{path} cannot be read ({error.strerror})", allowed="a text file in UTF-8", remedy="name another"
        ) from error
    for name, text in tables.items():
        marks = re.search(re.escape(START.format(name)) + ".*?" + re.escape(END), page, re.DOTALL)
        if marks is None:
            raise OptionError(
                f"{path} has no place for {name}",
                allowed=f"the lines {START.format(name)} and {END}",
                remedy="add them where the table should stand",
            )
        page = page[: marks.start()] + marked(name, text) + page[marks.end() :]
    with writing(path, OptionError) as partial:
        partial.write_text(page, encoding="utf-8")
