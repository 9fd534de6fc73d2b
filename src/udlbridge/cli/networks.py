"""Networks and their samples as the command line names them: options, and what they mean."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import UserPath, load_array, load_arrays

if TYPE_CHECKING:
    from udlbridge.networks.model import Model

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
output_option = click.option(
    "--output", help="Which output of a module counts, where it gives several: a name, as logits, or a position."
)
samples_option = click.option(
    "--samples",
    "samples_file",
    type=UserPath(path_type=Path, exists=True),
    help="Take the first N samples of a .npy file, or of a .npz file that has several inputs by name.",
)


def load_model(name: str, dtype: str | None, output: str | None = None) -> Any:
    """A network by name, from a file, or from a function without arguments that makes one, "package.module:function".

    Without `dtype` a file and a function keep their own, and a network by name is float32. `output`: of a module.

    Raises:
        ModelFileError: there is no such file or function, or it cannot be read, or makes no network.
        OptionError: `output` with another network than a module.
    """
    from udlbridge.kernels.request import as_network
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
        return as_network(known[name](dtype=dtype or "float32"), output=output)
    chosen = int(output) if output is not None and re.fullmatch(r"-?\d+", output) else output
    if re.search(r":[A-Za-z_]\w*$", name):
        source, _, function = name.rpartition(":")
        model = _from_function(source, function, chosen)
    else:
        model = as_network(load_network(name), output=chosen)
    return model if dtype is None else model.astype(dtype)


def _from_function(source: str, function: str, output: str | int | None) -> Any:
    """What `function` of a module, or of a file that ends in .py, makes."""
    from udlbridge.errors import ModelFileError, UDLBridgeError
    from udlbridge.kernels.request import as_network

    try:
        if source.endswith(".py"):
            sys.path.insert(0, str(Path(source).absolute().parent))  # as `python file.py` does
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
        return as_network(made, output=output)
    except UDLBridgeError as error:
        raise ModelFileError(error.given, allowed=error.allowed, remedy=error.remedy) from error


def samples(model: Any, n: int, folder: Path | None, shape: str | None = None, file: Path | None = None) -> Any:
    """`n` samples that the model can take: of a file, the notebook's points, MNIST images, or else random ones.

    Raises:
        ShapeError: `shape` is not a list of sizes, or does not fit the layers; or the layers do not say one.
        DataError: the file has no arrays; or MNIST images are wanted, and no source has them.
    """
    from udlbridge import data
    from udlbridge.errors import ShapeError
    from udlbridge.networks import models
    from udlbridge.networks.foreign import ForeignNetwork
    from udlbridge.networks.inputs import plausible_shape, random_batch

    if file is not None:
        found = load_samples(file, several=isinstance(model, ForeignNetwork))
        return {name: value[:n] for name, value in found.items()} if isinstance(found, dict) else found[:n]
    foreign = isinstance(model, ForeignNetwork)
    sizes = parsed_shape(shape) if shape is not None else model.sample_shape if foreign else plausible_shape(model)
    if sizes is None:
        raise ShapeError(
            "a module does not say what shape a sample has" if foreign else "the layers do not say it",
            allowed="--shape SIZES, for random samples, or --samples FILE",
            remedy="as --shape 3,32,32",
        )
    if foreign:
        return random_batch(model, sizes, n)
    model.output_shape(sizes)
    if shape is None and sizes == models.NOTEBOOK_POINTS.shape[1:] and n <= len(models.NOTEBOOK_POINTS):
        return models.NOTEBOOK_POINTS[:n].astype(model.dtype)
    if sizes in ((784,), (1, 28, 28)):
        return data.mnist("train", n=n, folder=folder, dtype=model.dtype.name)[0].reshape(n, *sizes)
    return random_batch(model, sizes, n)


def load_samples(file: Path, *, several: bool) -> Any:
    """The array of a .npy file; or those of a .npz file by name, where there may be several inputs.

    Raises:
        DataError: it is neither, or cannot be read.
    """
    allowed = "samples as numpy.save writes them, or several inputs by name as numpy.savez does"
    return load_arrays(file, allowed) if several and file.suffix == ".npz" else load_array(file, allowed)


def parsed_shape(text: str) -> tuple[int, ...]:
    """The sizes in "3,32,32". Raises `ShapeError` for anything else."""
    from udlbridge.errors import ShapeError

    sizes = text.split(",")
    if not all(re.fullmatch("[0-9]{1,9}", size.strip()) and int(size) > 0 for size in sizes):
        raise ShapeError(f"--shape {text}", allowed="positive numbers with commas", remedy="as --shape 3,32,32")
    return tuple(int(size) for size in sizes)
