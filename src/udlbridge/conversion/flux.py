"""Networks from Flux."""

from __future__ import annotations

import os
from typing import Any

from udlbridge.backends.julia.hosts import in_process
from udlbridge.backends.julia.models import adopted
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.errors import ConversionError, OptionError
from udlbridge.networks.graphs.files import load_network
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model
from udlbridge.texts import with_article


def from_flux(source: str | os.PathLike[str] | Any, x: Any = None) -> Model | Graph:
    """The network of a model in Julia, with equal outputs: a list of layers, or, with an example, a graph.

    Without `x` it is the `Model` of a Flux chain whose layers this library has too. With `x` it is the `Graph` of what
    any model computes: all of Flux's layers, recurrent ones and attention with them, closures, own structs, tied
    arrays. Outputs and derivatives of the graph are compared with the model's in Julia.

    Args:
        source: the file that `UDLBridge.save(chain, path)` or `UDLBridge.save(model, path, X)` wrote in Julia, which
            needs no Julia here: a model file as `Model.save` and `Graph.save` write it. Or the model itself, where
            juliacall has made it in this process, or what `udlbridge.julia_model` gives.
        x: (n, *D), an example of the model's samples, which come first here and last in Julia. Of a file there is none.

    Raises:
        ModelFileError: as `Model.load`.
        ConversionError: a model with a layer that has no translation, or what is neither a file nor a model in Julia.
        OptionError: `x` with a file.
        InputError: an `x` that the model does not take.
        JuliaUnavailable: the model's Julia lacks what `udlbridge` needs.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = mkdtemp() + "/chain.safetensors"  # in Julia: UDLBridge.save(chain, path)
        >>> ub.Model([ub.Dense(2, 1)]).save(path)
        >>> ub.from_flux(path).n_params
        3
    """
    if isinstance(source, (str, os.PathLike)):
        if x is not None:
            raise OptionError(
                "x with a file, which has its network whole",
                allowed="x with a model in Julia",
                remedy="leave x out, and give it to UDLBridge.save(model, path, X) in Julia",
            )
        return load_network(source)
    if isinstance(source, JuliaNetwork):
        return source.translated(None if x is None else source.checked_batch(x))
    if type(source).__module__.partition(".")[0] != "juliacall":
        raise ConversionError(
            f"from_flux of {with_article(type(source).__qualname__)}",
            allowed="the path of a file that UDLBridge.save(chain, path) wrote in Julia, or a model of juliacall",
        )
    if x is not None:
        return from_flux(adopted(source), x)
    found: Model | Graph = in_process().call("translated", source)
    return found
