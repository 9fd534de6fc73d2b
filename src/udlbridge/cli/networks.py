"""Networks as the command line names them: options, and what they mean."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from udlbridge.cli.targets import name_file
from udlbridge.paths import user_path


def _completed(_context: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names of networks, and files."""
    from udlbridge.networks.models import BY_NAME

    return [CompletionItem(name) for name in BY_NAME if name.startswith(begun)] or [CompletionItem(begun, type="file")]


def named_network(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """Callback of the options that name a network: where it is of a file, no result may take that one's place."""
    source = name.rpartition(":")[0] if name is not None and re.search(FUNCTION, name) else name
    if source is not None and os.path.isfile(user_path(source)):
        name_file(context, option.opts[0], user_path(source), written=False)
    return name


FUNCTION = r":[A-Za-z_]\w*$"
"""How a name ends that is of a function in a file or a module."""

model_option = click.option(
    "--model",
    "model_name",
    default="three_layer_sigmoid",
    show_default=True,
    metavar="NETWORK",
    shell_complete=_completed,
    callback=named_network,
    help="A name from udlbridge.models, as lenet5 or small_resnet; a file that a model was saved to; or a function "
    "that makes a network, a module of PyTorch or a model in Julia: package.module:function, file.py:function or "
    "file.jl:function.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Convert the network.  [default: as in its file; float32 for a network by name]",
)
output_option = click.option(
    "--output",
    metavar="NAME",
    help="Which output of a module counts, where it gives several: a name, as logits, or a position.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="Of the weights of a network by name, and of random samples.",
)
KEPT = re.compile(r"\.(safetensors|npz|pt|pth|json)$", re.IGNORECASE)


def load_model(name: str, dtype: str | None, output: str | None = None, seed: int = 0) -> Any:
    """A network by name, from a file, or from a function without arguments that makes one, "package.module:function".

    A function in a file that ends in .jl is one of Julia.

    Without `dtype` a file and a function keep their own, and a network by name is float32. `output`: of a module.
    `seed`: of the weights of a network by name.

    Raises:
        ModelFileError: there is no such name, file or function, or it cannot be read, or makes no network.
        OptionError: `output` with another network than a module.
    """
    from udlbridge.conversion.formats import read_any
    from udlbridge.errors import ModelFileError
    from udlbridge.kernels.request import as_network
    from udlbridge.networks.models import BY_NAME
    from udlbridge.texts import nearest, read_text

    if name in BY_NAME:
        return as_network(BY_NAME[name](seed=seed, dtype=dtype or "float32"), output=output)
    choice = int(output) if output is not None and re.fullmatch(r"-?\d+", output) else output
    if re.search(FUNCTION, name):
        source, _, function = name.rpartition(":")
        model = (
            _from_julia(source, function, choice)
            if source.endswith(".jl")
            else _from_function(source, function, choice)
        )
    elif name.endswith((".py", ".jl")) and os.path.isfile(user_path(name)):
        found = re.findall(r"^(?:def|function) (\w+)", read_text(user_path(name)), re.MULTILINE)
        raise ModelFileError(
            f"{name} is a file of functions",
            allowed="one of them, which makes a network" + (f": {', '.join(found)}" if found else ""),
            remedy=f"name it: {name}:{next(iter(found), 'make')}",
        )
    elif KEPT.search(name) or os.path.lexists(name):
        model = as_network(read_any(Path(name)), output=choice)
    else:
        raise ModelFileError(
            f"there is no network called {name[:80]!r}, and no model file of that name",
            allowed=", ".join(BY_NAME),
            remedy=f"choose one of them{nearest(name[:80], BY_NAME)}; or name a file, or FILE:function",
        )
    return model if dtype is None else model.astype(dtype)


def made_in_python(name: str) -> bool:
    """Whether a network is what a function of Python makes, which may be a module of several outputs."""
    found = re.search(FUNCTION, name)
    return found is not None and not name.rpartition(":")[0].endswith(".jl")


def _from_julia(source: str, function: str, output: str | int | None) -> Any:
    """What `function` of a file of Julia makes."""
    from udlbridge.backends.julia.models import julia_model
    from udlbridge.kernels.request import as_network

    return as_network(julia_model(source, function), output=output)


def _from_function(source: str, function: str, output: str | int | None) -> Any:
    """What `function` of a module, or of a file that ends in .py, makes."""
    from udlbridge.errors import ModelFileError, UDLBridgeError
    from udlbridge.kernels.request import as_network
    from udlbridge.texts import nearest

    try:
        if source.endswith(".py"):
            file = user_path(source)
            if not file.is_file():
                raise ModelFileError(
                    f"there is no file {source}",
                    allowed="a file of Python with a function that makes a network",
                    remedy="correct its name",
                )
            sys.path.insert(0, str(file.absolute().parent))  # as `python file.py` does
            names = runpy.run_path(str(file), run_name=file.stem)
        else:
            sys.path.insert(0, "")  # as `python -m` does
            names = vars(importlib.import_module(source))
        if function not in names:
            own = [name for name, value in names.items() if callable(value) and not name.startswith("_")]
            own = [name for name in own if getattr(names[name], "__module__", None) == names["__name__"]]
            raise ModelFileError(
                f"{source} has no function {function!r}",
                allowed=", ".join(own) or "one that makes a network",
                remedy=f"choose one of them{nearest(function, own)}" if own else "write one",
            )
        network: Any = names[function]()
    except ModelFileError:
        raise
    except Exception as error:  # it is the caller's code, which may raise anything
        raise ModelFileError(
            f"{source}:{function} gives no network ({type(error).__name__}: {error})",
            allowed="a function without arguments, as package.module:function or file.py:function",
            remedy="correct the name, or the function",
        ) from error
    try:
        return as_network(network, output=output)
    except UDLBridgeError as error:
        raise ModelFileError(error.given, allowed=error.allowed, remedy=error.remedy, shell=error.shell) from error
