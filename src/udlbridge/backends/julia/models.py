"""Models that are in Julia, as networks of this library."""

from __future__ import annotations

import os
from typing import Any

from udlbridge.backends.julia.host import Held
from udlbridge.backends.julia.hosts import host, in_process
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.errors import BackendError, ModelFileError
from udlbridge.paths import user_path


def adopted(model: Any) -> JuliaNetwork:
    """An object of juliacall as a network.

    Raises:
        ConversionError: as `JuliaNetwork`.
        JuliaUnavailable: its Julia lacks what `udlbridge` needs.
    """
    here = in_process()
    return JuliaNetwork(here, Held(here, here.call("adopt", model)))


def julia_model(path: str | os.PathLike[str], function: str) -> JuliaNetwork:
    """The model that a function in a file of Julia makes, as a network for every function that takes a `Model`.

    The file is included in a Julia module of its own, so that it may load packages, include other files and define
    structs; its code is executed. The function takes no arguments and gives any callable whose parameters Flux finds
    (`Flux.trainables`): a `Chain`, a layer, an own struct, what `UDLBridge.load` reads; or of Lux the model with its
    parameters and its state, `(model, ps, st)`. It is not copied; it is computed in inference mode.

    Samples come first in Python and last in Julia: the axes of arrays are reversed on the way. Images (n, C, H, W) come
    to the model as (W, H, C, n), as Flux has them, and its outputs (O, n) come back as (n, O). So what is flattened has
    the order of PyTorch's `flatten`, and a Dense layer after it means the same. Tokens count from 0 in Python, from 1
    in Julia; an own struct that looks them up is known by the integers that it is given.

    Args:
        path: the file, as "model.jl".
        function: the function's name, as "build".

    Returns:
        What `udlbridge.ntk`, `outputs`, `check`, `compare_models` and the others take in the place of a `Model`, as
        they take a model that juliacall made.

    Raises:
        ModelFileError: there is no such file or function, or an error of Julia in one of them.
        ConversionError: what the function gives has no kernel: no parameters, layers in training mode, other numbers
            than Float32 and Float64.
        JuliaUnavailable: there is no Julia.

    Examples:
        >>> network = ub.julia_model("net.jl", "build")  # doctest: +SKIP
        >>> ub.compare_models(module, network, x).ok  # doctest: +SKIP
        True
    """
    file = user_path(path)
    if not file.is_file():
        raise ModelFileError(f"there is no file {file}", allowed="a file of Julia", remedy="check the path")
    place = host()
    try:
        number = place.call("include", str(file.absolute()), function)
    except BackendError as error:
        said = error.given.partition(": ")[2].partition("\nStacktrace")[0]
        raise ModelFileError(
            f"{file}: {function} gives no model: {said}",
            allowed="a function without arguments that gives a model",
            remedy="correct the file, or the name",
        ) from None
    return JuliaNetwork(place, Held(place, number))
