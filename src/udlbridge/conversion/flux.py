"""Networks from Flux."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from udlbridge.networks.model import Model

if TYPE_CHECKING:
    pass


def from_flux(path: str | os.PathLike[str]) -> Model:
    """The network of a Flux chain that `UDLBridge.save(chain, path)` wrote in Julia, with equal outputs.

    The file is a model file as `Model.save` writes it; Julia itself is not needed to read it.

    Raises:
        ModelFileError: as `Model.load`.
    """
    return Model.load(path)
