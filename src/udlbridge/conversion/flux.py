"""Networks from Flux."""

from __future__ import annotations

import os
from typing import Any

from udlbridge.backends.julia.hosts import in_process
from udlbridge.backends.julia.networks import JuliaNetwork
from udlbridge.errors import ConversionError
from udlbridge.networks.model import Model
from udlbridge.texts import with_article


def from_flux(source: str | os.PathLike[str] | Any) -> Model:
    """The network of a Flux chain, with equal outputs.

    Args:
        source: the file that `UDLBridge.save(chain, path)` wrote in Julia, which needs no Julia here: a model file as
            `Model.save` writes it. Or the chain itself, where juliacall has made it in this process, or what
            `udlbridge.julia_model` gives.

    Raises:
        ModelFileError: as `Model.load`.
        ConversionError: a chain with a layer that has no translation, or what is neither a file nor a chain.
        JuliaUnavailable: the chain's Julia lacks what `udlbridge` needs.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = mkdtemp() + "/chain.safetensors"  # in Julia: UDLBridge.save(chain, path)
        >>> ub.Model([ub.Dense(2, 1)]).save(path)
        >>> ub.from_flux(path).n_params
        3
    """
    if isinstance(source, (str, os.PathLike)):
        return Model.load(source)
    if isinstance(source, JuliaNetwork):
        return source.translated()
    if type(source).__module__.partition(".")[0] != "juliacall":
        raise ConversionError(
            f"from_flux of {with_article(type(source).__qualname__)}",
            allowed="the path of a file that UDLBridge.save(chain, path) wrote in Julia, or a Flux chain of juliacall",
        )
    return in_process().call("translated", source)
