"""What several commands share: choosing engines, finding models and samples, writing JSON."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from udlbridge.networks.model import Model

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
model_option = click.option(
    "--model",
    "model_name",
    default="3ls",
    show_default=True,
    help="3ls, notebook1, lenet5, resnet, transformer, a .safetensors file, or a function that makes a network or a "
    "module of PyTorch: package.module:function or file.py:function.",
)
shape_option = click.option(
    "--shape", metavar="SIZES", help="Shape of one sample, as 3,32,32, where the layers do not say it."
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Convert the network.  [default: as in its file; float32 for a network by name]",
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


def load_model(name: str, dtype: str | None) -> Any:
    """A network by name, from a file, or from a function without arguments that makes one, "package.module:function".

    Without `dtype` a file and a function keep their own, and a network by name is float32.

    Raises:
        ModelFileError: there is no such file or function, or it cannot be read, or makes no network.
    """
    from udlbridge.networks import models
    from udlbridge.networks.graphs.files import load_network

    known: dict[str, Callable[..., Model]] = {
        "3ls": models.three_layer_sigmoid,
        "notebook1": models.notebook_method1,
        "lenet5": models.lenet5,
        "resnet": models.small_resnet,
        "transformer": models.small_transformer,
    }
    if name in known:
        return known[name](dtype=dtype or "float32")
    model = _from_function(*name.rsplit(":", 1)) if re.search(r":[A-Za-z_]\w*$", name) else load_network(name)
    return model if dtype is None else model.astype(dtype)


def _from_function(source: str, function: str) -> Any:
    """What `function` of a module, or of a file that ends in .py, makes."""
    from udlbridge.errors import ModelFileError, UDLBridgeError
    from udlbridge.kernels.request import as_network

    try:
        if source.endswith(".py"):
            found: Any = runpy.run_path(source, run_name=Path(source).stem)[function]
        else:
            sys.path.insert(0, "")  # as `python -m` does
            found = getattr(importlib.import_module(source), function)
        made = found()
    except Exception as error:  # it is the caller's code, which may raise anything
        raise ModelFileError(
            f"{source}:{function} gives no network ({type(error).__name__}: {error})",
            allowed="a function without arguments, as package.module:function or file.py:function",
            remedy="correct the name, or the function",
        ) from error
    try:
        return as_network(made)
    except UDLBridgeError as error:
        raise ModelFileError(error.given, allowed=error.allowed, remedy=error.remedy) from error


def samples(model: Any, n: int, folder: Path | None, shape: str | None = None) -> np.ndarray:
    """`n` samples that the model can take: the notebook's points, MNIST images, or else random ones of its shape.

    Raises:
        ShapeError: `shape` is not a list of sizes, or does not fit the layers; or the layers do not say one.
        DataError: MNIST images are wanted, and no source has them.
    """
    from udlbridge import data
    from udlbridge.errors import ShapeError
    from udlbridge.networks import models
    from udlbridge.networks.foreign import ForeignNetwork
    from udlbridge.networks.inputs import plausible_shape, random_batch

    foreign = isinstance(model, ForeignNetwork)
    sizes = parsed_shape(shape) if shape is not None else model.sample_shape if foreign else plausible_shape(model)
    if sizes is None:
        raise ShapeError(
            "the layers do not say what shape a sample has", allowed="--shape SIZES", remedy="as --shape 3,32,32"
        )
    if foreign:
        return random_batch(model, sizes, n)
    model.output_shape(sizes)
    if shape is None and sizes == models.NOTEBOOK_POINTS.shape[1:] and n <= len(models.NOTEBOOK_POINTS):
        return models.NOTEBOOK_POINTS[:n].astype(model.dtype)
    if sizes in ((784,), (1, 28, 28)):
        return data.mnist("train", n=n, folder=folder, dtype=model.dtype.name)[0].reshape(n, *sizes)
    return random_batch(model, sizes, n)


def parsed_shape(text: str) -> tuple[int, ...]:
    """The sizes in "3,32,32". Raises `ShapeError` for anything else."""
    from udlbridge.errors import ShapeError

    sizes = text.split(",")
    if not all(re.fullmatch("[0-9]{1,9}", size.strip()) and int(size) > 0 for size in sizes):
        raise ShapeError(f"--shape {text}", allowed="positive numbers with commas", remedy="as --shape 3,32,32")
    return tuple(int(size) for size in sizes)
