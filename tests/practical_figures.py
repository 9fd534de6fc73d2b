"""What every figure of a practical has to be: right, all that the source prints, and as the index shows it."""

from __future__ import annotations

from udlbridge.udl import practicals
from udlbridge.udl.practicals import Row, overview

INDEX = practicals.folder().parent / "README.md"

QUICK = ("05_backpropagation", "11_input_derivatives")
"""Practicals that take about a second, also several times."""

PRINTED = {
    "02_losses": (
        "0.119 0.800 0.200 0.200 0.500 0.300 0.000010624 11.452419564 2.020992572 0.000070237 9.563639387 0.000000041 "
        "17.015457867 0.27"
    ),
    "03_line_search": "12.367",
    "04_gabor": "16.419",
    "05_backpropagation": (
        "1.230 0.942 1.623 5.068 7.137 0.657 2.372 0.864 "  # f0 to h4
        "-0.632 0.476 0.953 4.830 -1.932 -0.646 "  # by h3 to f0
        "1.000 0.864 -0.211 -0.139 0.476 2.415 4.830 4.552 -0.646 "  # by beta4, omega4 to beta0
        "1.907"
    ),
    "09_high_dimensions": "1036.321",
    "11_input_derivatives": "0.0903533 0.0903533",
    "12_tensors_and_descent": "6 4 10 256 256 3 6",
}
"""All figures that the sources print or assert; a practical checks exactly these, as often."""


def check_figures(name: str, backend: str, rows: list[Row]) -> None:
    """Fail where a figure of the engine is wrong, is missing, or is another one than the index says."""
    assert rows
    wrong = [row for row in rows if not row.ok]
    assert not wrong, "\n" + practicals.table(wrong)
    checked = sorted(row.expected for row in rows if row.origin == practicals.PRINTED)
    assert sorted(float(text) for text in PRINTED.get(name, "").split()) == checked
    _check_index(name, backend, rows)


def _check_index(name: str, backend: str, rows: list[Row]) -> None:
    """The table in the index shows the figures of the source, and ours, as they come out here."""
    page = INDEX.read_text(encoding="utf-8")
    start, end = overview.START.format(name), overview.END
    assert start in page
    shown = page.split(start)[1].split(end)[0]
    lines, wanted = _cells(shown), _cells(overview.comparison({backend: rows}))
    skipped = any(row.origin == practicals.SKIPPED for row in rows)
    if "skipped" in shown and not skipped:
        return  # the index was written where the weights of the source's network are not to be had
    if skipped and "skipped" not in shown:  # the index was written where the source's data are, and here they are not
        figures = [[overview._escaped(row.quantity), overview._expected(row)] for row in rows if row.of_source]
        assert figures
        assert all(figure in [line[:2] for line in lines] for figure in figures)
        return
    assert [line[:2] for line in lines] == [line[:2] for line in wanted], f"udlbridge practicals table {name} --write"
    column = lines[0].index(backend) if lines and backend in lines[0] else None
    here = {line[0]: line[2] for line in wanted}
    # Where the last digit of the source is free, as after a training, it may be another one on another machine.
    fixed = {
        overview._escaped(row.quantity) for row in rows if row.of_source and row.tolerance < 10.0 ** -(row.digits or 0)
    }
    for line in lines:
        if line[0] in fixed and (len(line) == 3 or column is not None):
            assert line[2 if len(line) == 3 else column] == here[line[0]]


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
