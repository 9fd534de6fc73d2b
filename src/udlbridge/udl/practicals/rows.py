"""A figure of a practical beside what it should be, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from udlbridge.displays import Displayed
from udlbridge.texts import counted

PRINTED = "printed"
SOLVED = "solved"
CLOSED_FORM = "closed form"
DIFFERENCES = "differences"
BELOW = "below"
SKIPPED = "skipped"


@dataclass(frozen=True)
class Row:
    """One figure of a practical, and what it should be.

    `origin` says where `expected` comes from: "printed" in the source; what the source's own program prints once its
    tasks are "solved"; a "closed form" (or another independent computation); finite "differences"; or a line that the
    figure has to stay "below". What is "skipped" cannot be had here. `tolerance` is the largest difference allowed: for
    a figure of the source half a unit of its last digit. `digits` are the decimals that the source shows, None where it
    shows none. `engine` is False for a figure of the data alone, which no engine has touched; `note` says why a figure
    was skipped.
    """

    quantity: str
    origin: str
    expected: float
    figure: float
    tolerance: float = 0.0
    digits: int | None = None
    engine: bool = True
    note: str = ""

    @property
    def difference(self) -> float:
        """figure - expected."""
        return self.figure - self.expected

    @property
    def ok(self) -> bool:
        """Whether the figure is what it should be; what was skipped is not held against the engine."""
        if self.origin == SKIPPED:
            return True
        if self.origin == BELOW:
            return self.figure < self.expected
        return abs(self.difference) <= self.tolerance

    @property
    def of_source(self) -> bool:
        """Whether `expected` is a figure of the source itself."""
        return self.origin in (PRINTED, SOLVED)

    def shown(self, value: float) -> str:
        """`value` with as many decimals as the source shows, else with ten significant digits."""
        return format(value, ".10g") if self.digits is None else f"{value:.{self.digits}f}"

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        numbers = {"expected": self.expected, "figure": self.figure, "difference": self.difference}
        known = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {**asdict(self), **known, "ok": self.ok}


class Figures(list[Row], Displayed):
    """The figures of a practical: a list, which shows itself as a table."""

    __repr__ = Displayed.__repr__  # of a list it would be that of every row

    def __str__(self) -> str:
        differ = [row.quantity for row in self if not row.ok]
        held = sum(row.ok and row.origin != SKIPPED for row in self)
        skipped = sum(row.origin == SKIPPED for row in self)
        text = f"{counted(len(self), 'figure')}: {held} {'holds' if held == 1 else 'hold'}"
        text += f", {len(differ)} {'differs' if len(differ) == 1 else 'differ'}" if differ else ""
        text += f", {skipped} skipped" if skipped else ""
        return "\n".join([text, *(f"  {quantity}" for quantity in differ)])

    def as_rows(self) -> list[dict[str, Any]]:
        """A row for each figure: what it should be, what it is, and the verdict."""
        return [
            {
                "figure": row.quantity,
                "expected": None if row.origin == SKIPPED else row.shown(row.expected),
                "here": None if row.origin == SKIPPED else row.shown(row.figure),
                "verdict": row.note if row.origin == SKIPPED else "ok" if row.ok else "DIFFERS",
                "held against": row.origin,
            }
            for row in self
        ]


def printed(quantity: str, text: str, figure: float) -> Row:
    """A figure as the source prints it: `figure` has to round to the same digits."""
    return _from_text(quantity, PRINTED, text, figure)


def solved(quantity: str, text: str, figure: float, *, tolerance: float | None = None, engine: bool = True) -> Row:
    """A figure as the source's program prints it, run once with its tasks solved.

    Args:
        quantity: what it is.
        text: the figure in the source's digits.
        figure: ours.
        tolerance: the largest difference allowed; None is half a unit of the last digit of `text`.
        engine: False for a figure of the data alone.
    """
    return _from_text(quantity, SOLVED, text, figure, tolerance, engine)


def _from_text(
    quantity: str, origin: str, text: str, figure: float, tolerance: float | None = None, engine: bool = True
) -> Row:
    digits = len(text.partition(".")[2])
    if tolerance is None:
        # Half a unit of the last digit, and the rounding of the decimal fraction itself.
        tolerance = 0.5 * 10.0**-digits * (1 + 1e-9)
    return Row(quantity, origin, float(text), float(figure), tolerance, digits, engine)


def asserted(quantity: str, expected: float, figure: float, *, engine: bool = True) -> Row:
    """A figure that the source compares by `==`."""
    return Row(quantity, PRINTED, float(expected), float(figure), engine=engine)


def closed_form(quantity: str, expected: float, figure: float, tolerance: float = 1e-12) -> Row:
    """A figure that another computation gives; `tolerance` is relative to values above 1, absolute below."""
    return Row(quantity, CLOSED_FORM, float(expected), float(figure), float(tolerance) * max(1.0, abs(float(expected))))


def largest_gap(quantity: str, value: np.ndarray, reference: np.ndarray, tolerance: float = 1e-12) -> Row:
    """The entry of an array that is farthest from what it should be; the largest one where all are equal.

    `tolerance` is relative to the largest entry of `reference`.

    Raises:
        ValueError: arrays of different shapes.
    """
    value, reference = np.asarray(value, dtype=float), np.asarray(reference, dtype=float)
    if value.shape != reference.shape:
        raise ValueError(f"{quantity}: shapes {value.shape} and {reference.shape}")
    gaps, sizes = np.abs(value - reference).ravel(), np.abs(reference).ravel()
    worst = int(np.argmax(gaps if gaps.any() else sizes))
    found = float(reference.flat[worst]), float(value.flat[worst])
    return Row(quantity, CLOSED_FORM, *found, tolerance * max(float(sizes.max()), 1e-300))


def differences(quantity: str, expected: float, figure: float, tolerance: float) -> Row:
    """A derivative, and its finite difference with the error that this has."""
    return Row(quantity, DIFFERENCES, float(expected), float(figure), tolerance)


def below(quantity: str, line: float, figure: float) -> Row:
    """A figure that has to stay below a line."""
    return Row(quantity, BELOW, float(line), float(figure))


def skipped(quantity: str, reason: str) -> Row:
    """A figure that cannot be had here, and why."""
    return Row(quantity, SKIPPED, math.nan, math.nan, note=reason)


def table(rows: Sequence[Row]) -> str:
    """The rows as text: what it is, what it should be, what it is here, the difference, the verdict.

    Where some are an engine's and some are of the data alone, these stand apart, below.
    """
    data = [row for row in rows if not row.engine]
    if 0 < len(data) < len(rows):
        return f"{table([row for row in rows if row.engine])}\n\nof the data alone\n{table(data)}"
    width = max([len(row.quantity) for row in rows if row.origin != SKIPPED] + [8])
    lines = [f"{'':<{width}}  {'expected':>16}  {'here':>16}  {'difference':>10}  verdict"]
    for row in rows:
        if row.origin == SKIPPED:
            lines.append(f"skipped: {row.quantity}: {row.note}")
            continue
        sign = "< " if row.origin == BELOW else ""
        verdict = f"{'ok' if row.ok else 'DIFFERS'} ({row.origin})"
        expected = row.shown(row.expected) if row.of_source else format(row.expected, ".10g")
        lines.append(
            f"{row.quantity:<{width}}  {sign + expected:>16}  {row.figure:>16.10g}  {row.difference:>10.1e}  {verdict}"
        )
    return "\n".join(lines)
