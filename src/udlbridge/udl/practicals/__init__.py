"""The practicals: short scripts that compute a source's figures in any engine, found, run and judged here.

In a checkout the scripts stand in `examples/practicals`; an installed wheel carries them in this package, in `scripts`.
Each has a docstring, `rows(backend)`, which gives a `Row` for every figure, and `draw(backend)`, which gives a picture.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from udlbridge.errors import OptionError, UDLBridgeError

PRINTED = "printed"
CLOSED_FORM = "closed form"
DIFFERENCES = "differences"
BELOW = "below"
SKIPPED = "skipped"


@dataclass(frozen=True)
class Row:
    """One figure of a practical, and what it should be.

    `origin` says where `expected` comes from: "printed" in the source, a "closed form" (or another independent
    computation), finite "differences", or a line that the figure has to stay "below"; what is "skipped" cannot be had
    here. `tolerance` is the largest difference allowed: for a printed figure half a unit of its last digit.
    """

    quantity: str
    origin: str
    expected: float
    figure: float
    tolerance: float = 0.0

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

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        numbers = {"expected": self.expected, "figure": self.figure, "difference": self.difference}
        known = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {**asdict(self), **known, "ok": self.ok}


def printed(quantity: str, text: str, figure: float) -> Row:
    """A figure as the source prints it: `figure` has to round to the same digits."""
    digits = len(text.partition(".")[2])
    # Half a unit of the last digit, and the rounding of the decimal fraction itself.
    return Row(quantity, PRINTED, float(text), float(figure), 0.5 * 10.0**-digits * (1 + 1e-9))


def asserted(quantity: str, expected: float, figure: float) -> Row:
    """A figure that the source compares by `==`."""
    return Row(quantity, PRINTED, float(expected), float(figure))


def closed_form(quantity: str, expected: float, figure: float, tolerance: float = 1e-12) -> Row:
    """A figure that another computation gives; `tolerance` is relative to values above 1, absolute below."""
    return Row(quantity, CLOSED_FORM, float(expected), float(figure), float(tolerance) * max(1.0, abs(float(expected))))


def largest_gap(quantity: str, value: np.ndarray, reference: np.ndarray, tolerance: float = 1e-12) -> Row:
    """The largest difference of two arrays relative to the largest entry of the second, which should be 0."""
    if value.shape != reference.shape:
        raise ValueError(f"{quantity}: shapes {value.shape} and {reference.shape}")
    gap = float(np.max(np.abs(value - reference)) / max(float(np.max(np.abs(reference))), 1e-300))
    return Row(quantity, CLOSED_FORM, 0.0, gap, tolerance)


def differences(quantity: str, expected: float, figure: float, tolerance: float) -> Row:
    """A derivative, and its finite difference with the error that this has."""
    return Row(quantity, DIFFERENCES, float(expected), float(figure), tolerance)


def below(quantity: str, line: float, figure: float) -> Row:
    """A figure that has to stay below a line."""
    return Row(quantity, BELOW, float(line), float(figure))


def skipped(quantity: str, reason: str) -> Row:
    """A figure that cannot be had here, and why."""
    return Row(f"{quantity}: {reason}", SKIPPED, math.nan, math.nan)


def folder() -> Path:
    """Where the scripts are: beside this file in an installed wheel, else in the checkout's examples.

    Raises:
        UDLBridgeError: in neither place.
    """
    here = Path(__file__).resolve().parent
    for candidate in (here / "scripts", here.parents[3] / "examples" / "practicals"):
        if candidate.is_dir():
            return candidate
    raise UDLBridgeError("the practicals that udlbridge ships are not there", remedy="install udlbridge again")


def names() -> list[str]:
    """Names of all practicals, in order."""
    return sorted(path.stem for path in folder().glob("[0-9][0-9]_*.py"))


def full_name(name: str) -> str:
    """The name of the practical that is called so, with or without its number, or has that number ("3" or "03").

    Raises:
        OptionError: there is none.
    """
    for full in names():
        if name in (full, full[3:], full[:2], full[:2].lstrip("0")):
            return full
    raise OptionError(f"no practical is called {name!r}", allowed=", ".join(names()), remedy="use one of them")


def load(name: str) -> ModuleType:
    """The script of that name as a module. Raises as `full_name`."""
    full = full_name(name)
    key = f"udlbridge_practical_{full}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, folder() / f"{full}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[key] = module
    return sys.modules[key]


def title(name: str) -> str:
    """The first line of the practical's docstring."""
    return (load(name).__doc__ or name).strip().splitlines()[0]


def run(name: str, backend: str | None = None) -> list[Row]:
    """All figures of one practical, computed by one engine."""
    rows: list[Row] = load(name).rows(backend)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as text: what it is, what it should be, what it is here, the difference, the verdict."""
    width = max([len(row.quantity) for row in rows if row.origin != SKIPPED] + [8])
    lines = [f"{'':<{width}}  {'expected':>16}  {'here':>16}  {'difference':>10}  verdict"]
    for row in rows:
        if row.origin == SKIPPED:
            lines.append(f"skipped: {row.quantity}")
            continue
        sign = "< " if row.origin == BELOW else ""
        verdict = f"{'ok' if row.ok else 'DIFFERS'} ({row.origin})"
        lines.append(
            f"{row.quantity:<{width}}  {sign + format(row.expected, '.10g'):>16}  {row.figure:>16.10g}  "
            f"{row.difference:>10.1e}  {verdict}"
        )
    return "\n".join(lines)


def prepare_folder(target: Path) -> None:
    """Make the folder for pictures, if it is not there.

    Raises:
        OptionError: it cannot be made or written to.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"the folder {target} cannot be made ({error.strerror})", allowed="a folder", remedy="name another"
        ) from error
    if not os.access(target, os.W_OK):
        raise OptionError(f"the folder {target} cannot be written to", allowed="a folder", remedy="name another")


def save_picture(name: str, target: Path, backend: str | None = None) -> Path:
    """Draw a practical's picture into the folder `target`, as a PNG of its name. Raises as `prepare_folder`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    prepare_folder(target)
    figure = load(name).draw(backend)
    path = target / f"{full_name(name)}.png"
    figure.savefig(path, dpi=72, bbox_inches="tight", pil_kwargs={"optimize": True})
    pyplot.close(figure)
    return path


def main(file: str, doc: str | None) -> None:
    """What `python NN_name.py [--backend B] [--plot DIR]` does: print, draw; exit as `udlbridge practicals run`."""
    import click

    name = Path(file).stem

    @click.command(help=doc)
    @click.option("--backend", default=None, help="torch, julia or reference.")
    @click.option("--plot", type=click.Path(path_type=Path), help="Folder for the picture.")
    def command(backend: str | None, plot: Path | None) -> None:
        try:
            if plot is not None:
                prepare_folder(plot)
            rows = run(name, backend)
            click.echo(table(rows))
            if plot is not None:
                click.echo(f"wrote {save_picture(name, plot, backend)}")
        except UDLBridgeError as error:
            click.echo(f"{name}: {error}", err=True)
            sys.exit(2)
        sys.exit(0 if all(row.ok for row in rows) else 1)

    entry: Callable[[], Any] = command
    entry()
