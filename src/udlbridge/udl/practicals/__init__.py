"""The practicals: short scripts that compute a source's figures in any engine, found, run and judged here.

In a checkout the scripts stand in `examples/practicals`; an installed wheel carries them in this package, in `scripts`.
Each has a docstring, `rows(backend)`, which gives a `Row` for every figure, and `draw(backend)`, which gives a picture,
or several by name. Where a figure of the source takes long, `full_rows(backend)` gives it, and a short run stands in
`rows`. What cannot be said by figures alone, `report(backend)` says as text.

Examples:
    >>> ub.practicals.full_name("2")
    '02_losses'
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from udlbridge.atomic import writing
from udlbridge.errors import OptionError, UDLBridgeError
from udlbridge.options import brief
from udlbridge.texts import completion, nearest
from udlbridge.udl.practicals.rows import BELOW as BELOW
from udlbridge.udl.practicals.rows import CLOSED_FORM as CLOSED_FORM
from udlbridge.udl.practicals.rows import DIFFERENCES as DIFFERENCES
from udlbridge.udl.practicals.rows import PRINTED as PRINTED
from udlbridge.udl.practicals.rows import SKIPPED as SKIPPED
from udlbridge.udl.practicals.rows import SOLVED as SOLVED
from udlbridge.udl.practicals.rows import Figures as Figures
from udlbridge.udl.practicals.rows import Row as Row
from udlbridge.udl.practicals.rows import asserted as asserted
from udlbridge.udl.practicals.rows import below as below
from udlbridge.udl.practicals.rows import closed_form as closed_form
from udlbridge.udl.practicals.rows import differences as differences
from udlbridge.udl.practicals.rows import largest_gap as largest_gap
from udlbridge.udl.practicals.rows import printed as printed
from udlbridge.udl.practicals.rows import skipped as skipped
from udlbridge.udl.practicals.rows import solved as solved
from udlbridge.udl.practicals.rows import table as table
from udlbridge.words import EngineWord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Figures",
    "Row",
    "check_pictures",
    "drawn",
    "folder",
    "full_name",
    "load",
    "names",
    "report",
    "run",
    "save_pictures",
    "table",
    "title",
]
__dir__ = completion(__all__)

WIDTH = 1320
"""Pixels of a picture, before its margins are cut."""


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
        if isinstance(name, str) and name in (full, full[3:], full[:2], full[:2].lstrip("0")):
            return full
    raise OptionError(
        f"no practical is called {brief(name)}",
        allowed=", ".join(names()),
        remedy=f"use one of them{nearest(name, names())}",
    )


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


def run(name: str, backend: EngineWord | None = None, *, full: bool = False) -> Figures:
    """All figures of one practical, computed by one engine; with `full`, those too that take long.

    Raises:
        OptionError: no such practical, or `full` where nothing takes long.
    """
    module = load(name)
    rows: list[Row] = module.rows(backend)
    if not full:
        return Figures(rows)
    if not hasattr(module, "full_rows"):
        raise OptionError(f"{full_name(name)} has no longer run", allowed="the run as it is", remedy="leave out full")
    return Figures(rows + module.full_rows(backend))


def report(name: str, backend: EngineWord | None = None) -> str:
    """What a practical shows as text, above its figures; empty where figures say it all."""
    module = load(name)
    return str(module.report(backend)) if hasattr(module, "report") else ""


@contextmanager
def data_from(data: Path | None) -> Iterator[None]:
    """Within it, data sets are looked for in the folder `data` first, as if UDLBRIDGE_DATA named it."""
    before = os.environ.get("UDLBRIDGE_DATA")
    if data is not None:
        os.environ["UDLBRIDGE_DATA"] = str(data)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("UDLBRIDGE_DATA", None)
        else:
            os.environ["UDLBRIDGE_DATA"] = before


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


SIGNED = "RdBu_r"
"""The map of values with signs: white is zero, and both ends differ in lightness from it."""


def style() -> dict[str, Any]:
    """Settings of matplotlib for all pictures: colours that colour-blind people tell apart, and a line style with each.

    Source of the colours: Okabe and Ito (2008), Color Universal Design.
    """
    from cycler import cycler

    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
    lines = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    return {
        "axes.prop_cycle": cycler(color=colours) + cycler(linestyle=lines),
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "image.cmap": "cividis",
    }


def drawn(name: str, backend: EngineWord | None = None) -> dict[str, Figure]:
    """A practical's pictures by their labels, "" for the only one."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context(style()):
        found = load(name).draw(backend)
    return found if isinstance(found, dict) else {"": found}


def save_pictures(name: str, target: Path, backend: EngineWord | None = None) -> list[Path]:
    """Draw a practical's pictures into the folder `target`: NAME.png, and NAME_x.png for each that is called "x".

    Raises:
        OptionError: as `prepare_folder`.
    """
    import matplotlib
    from matplotlib import pyplot

    prepare_folder(target)
    paths = []
    with matplotlib.rc_context(style()):
        for label, figure in drawn(name, backend).items():
            path = target / f"{full_name(name)}{'_' * bool(label)}{label}.png"
            dpi = WIDTH / figure.get_tightbbox().width  # what is empty at the edges is cut off
            with writing(path, OptionError) as partial:
                figure.savefig(partial, format="png", dpi=dpi, bbox_inches="tight", pil_kwargs={"optimize": True})
            pyplot.close(figure)
            paths.append(path)
    return paths


def check_pictures(name: str, target: Path) -> None:
    """Find out before a practical runs whether its pictures would overwrite others.

    Raises:
        OptionError: there is one of this practical in the folder `target`.
    """
    full = full_name(name)
    for path in sorted(target.glob(f"{full}*.png")):
        if path.stem == full or path.stem.startswith(f"{full}_"):
            raise OptionError(
                f"--plot {target}: {path.name} exists",
                allowed="a folder without pictures of the practical",
                remedy="add --force to overwrite it",
            )


def main(file: str, doc: str | None) -> None:
    """What `python NN_name.py --backend B --full --data DIR --plot DIR` does: print, draw, and exit as the command."""
    import click

    name = Path(file).stem

    @click.command(help=doc)
    @click.option("--backend", default=None, help="torch, julia or reference.")
    @click.option("--full", is_flag=True, help="Run what takes long, too.")
    @click.option("--data", type=click.Path(path_type=Path), help="Folder with data sets. [UDLBRIDGE_DATA]")
    @click.option("--plot", type=click.Path(path_type=Path), help="Folder for the pictures.")
    @click.option("--force", is_flag=True, help="Overwrite pictures that exist.")
    def command(backend: EngineWord | None, full: bool, data: Path | None, plot: Path | None, force: bool) -> None:
        try:
            if plot is not None:
                prepare_folder(plot)
                if not force:
                    check_pictures(name, plot)
            with data_from(data):
                rows = run(name, backend, full=full)
                if text := report(name, backend):
                    click.echo(f"{text}\n")
                click.echo(table(rows))
                for path in [] if plot is None else save_pictures(name, plot, backend):
                    click.echo(f"wrote {path}")
        except UDLBridgeError as error:
            click.echo(f"{name}: {error}", err=True)
            sys.exit(2)
        sys.exit(0 if all(row.ok for row in rows) else 1)

    entry: Callable[[], Any] = command
    entry()
