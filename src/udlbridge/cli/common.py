"""What several commands share: choosing engines, finding models and samples, writing JSON."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


Command = Callable[..., Any]


class UserPath(click.Path):
    """A path as users type it: `~` is their home, also where the shell leaves it as it is (`--out=~/K.zarr`)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, expanded; a name that the system does not take is a usage error."""
        try:
            found = super().convert(os.path.expanduser(value), param, ctx)
            os.path.lexists(found)
            Path(os.fsdecode(found)).exists()
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            self.fail(f"{os.fspath(value)[:40]!r}... is no path here: {words}", param, ctx)
        return found


data_option = click.option(
    "--data", "folder", type=UserPath(path_type=Path), help="Folder with the four MNIST files. [UDLBRIDGE_DATA]"
)


def _writable_json(_context: click.Context, _option: click.Parameter, target: Path | None) -> Path | None:
    """Find out before a long computation whether its result can be written."""
    if target is not None and str(target) != "-":
        from udlbridge.atomic import check_target
        from udlbridge.errors import OptionError

        check_target(target, OptionError, f"--json {target}")
    return target


def _writable_plots(_context: click.Context, _option: click.Parameter, target: Path | None) -> Path | None:
    """Find out before a long computation whether its plots can be written: the folder is there, or can be made."""
    if target is not None:
        from udlbridge.errors import OptionError

        nearest = next(path for path in (target, *target.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise OptionError(
                f"--plot {target} cannot be written: {nearest} is "
                + ("protected" if nearest.is_dir() else "a file, not a folder"),
                allowed="a folder; one that is not there is made",
                remedy="name another",
            )
    return target


json_option = click.option(
    "--json",
    "json_file",
    type=UserPath(path_type=Path, allow_dash=True),
    callback=_writable_json,
    help="Write the result as JSON; - for stdout.",
)
plot_option = click.option(
    "--plot",
    "plots",
    type=UserPath(path_type=Path),
    callback=_writable_plots,
    help="Folder for PNG pictures.",
)
outputs_option = click.option(
    "--outputs", default="trace", show_default=True, help="An output from 0 on, or trace, mean, sum, diagonal, full."
)

params_option = click.option(
    "--params",
    multiple=True,
    metavar="PATTERN",
    help="Sum over these parameters alone: names, *.bias, readout, hidden.",
)


def selection(params: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """The patterns of --params as the library takes them."""
    return params or None


def count_option(default: int | None, words: str) -> Callable[[Command], Command]:
    """--n, a number of samples."""
    return click.option("--n", default=default, type=click.IntRange(min=1), show_default=True, help=words)


def write_json(result: dict[str, Any], target: Path) -> None:
    """Write `result` to a file, or to standard output for "-"; NaN and infinity, which JSON does not know, as null.

    Raises:
        OptionError: the file cannot be written.
    """
    from udlbridge.atomic import writing
    from udlbridge.errors import OptionError
    from udlbridge.reports import json_ready

    text = json.dumps(json_ready(result), indent=2, allow_nan=False)
    if str(target) == "-":
        click.echo(text)
        return
    with writing(target, OptionError) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def save_figure(figure: Figure, path: Path, json_file: Path | None) -> None:
    """Write a figure as PNG into a folder, which is made if it is not there, and say so.

    Raises:
        OptionError: the file cannot be written.
    """
    from udlbridge.atomic import writing
    from udlbridge.errors import OptionError

    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, OptionError) as partial:
        figure.savefig(partial, format="png", dpi=110)
    report(f"wrote {path}", json_file)


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
        check_archive(path, PACKED)
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # as of a .npy file
        raise DataError(
            f"{path} is not a .npz file ({error})", allowed=allowed, remedy="write it again: it may be truncated"
        ) from error


PACKED = 1000
"""How many times its own size an archive of samples may unpack to."""


def report(text: str, json_file: Path | None) -> None:
    """Print the text for people, unless standard output is for the JSON."""
    click.echo(text, err=json_file is not None and str(json_file) == "-")


def engines(choice: str, *, install: bool = False) -> tuple[list[str], dict[str, str]]:
    """The backends that "all", or a comma-separated list, means here; and those left out of "all", with the reason.

    Julia is set up through juliapkg if it is missing and `install` allows it. Where that fails, the others of "all" go
    on without it.

    Raises:
        UnknownBackend: there is no engine of one of the names.
        BackendUnavailable: an engine in the list cannot run here.
    """
    from udlbridge import backends
    from udlbridge.errors import BackendUnavailable

    if choice != "all":
        names = backends.selected([name.strip() for name in choice.split(",")])
        for name in names:
            backends.get(name, install=install)
        return names, {}
    usable, skipped = [], {}
    for name in backends.engines():
        try:
            backends.get(name, install=install)
            usable.append(name)
        except BackendUnavailable as error:
            skipped[name] = str(error)
    return usable, skipped
