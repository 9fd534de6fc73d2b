"""Specs: the layers of a network as JSON text, as model files hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from udlbridge.errors import ModelFileError, ParameterError
from udlbridge.networks.layers import Layer, layer_from_spec
from udlbridge.networks.parameters import checked_dtype
from udlbridge.words import FloatWord

FORMAT_VERSION = 1
"""Version of the spec in a model file. It grows when an older reader could misread a newer file."""


GRAPH_FORMAT = 2
"""The format number of graphs, which have specs of another kind: `udlbridge.networks.graphs.specs`."""

INPUTS_FORMAT = 3
"""That of graphs of several inputs, which readers of format 2 do not know."""

GRAPH_FORMATS = (GRAPH_FORMAT, INPUTS_FORMAT)


def spec_of(layers: Iterable[Layer], dtype: str) -> dict[str, Any]:
    """Layers and dtype as JSON-ready data."""
    return {"format": FORMAT_VERSION, "dtype": dtype, "layers": [layer.spec() for layer in layers]}


def parsed_spec(spec: str, source: str) -> tuple[list[Layer], FloatWord]:
    """The layers and the dtype of a spec in JSON text, `json.dumps(spec_of(...))`.

    Raises:
        ModelFileError: no spec, an unknown kind of layer, or another format version; it names `source`.
    """
    try:
        found = json.loads(spec)
        version = found["format"]
        dtype, described = ("", []) if version in GRAPH_FORMATS else (found["dtype"], list(found["layers"]))
    except (KeyError, TypeError, ValueError, RecursionError):  # integers of thousands of digits, endless nesting
        raise ModelFileError(
            f"{source} has no udlbridge spec",
            allowed="a file written by model.save or UDLBridge.save",
            remedy="build the Model from its layers and pass the tensors as params=",
        ) from None
    if version in GRAPH_FORMATS:
        raise ModelFileError(
            f"{source} holds a graph", allowed="a model of layers", remedy="read it with ub.Graph.load(path)"
        )
    if version != FORMAT_VERSION:
        remedy = "update udlbridge" if isinstance(version, int) and version > FORMAT_VERSION else "save it again"
        raise ModelFileError(
            f"{source} has format version {version}",
            allowed=f"version {FORMAT_VERSION}",
            remedy=remedy,
        )
    try:
        return [layer_from_spec(layer) for layer in described], checked_dtype(dtype)
    except RecursionError:
        raise ModelFileError(
            f"{source} has layers in layers without end", allowed="branches a few deep", remedy="save it again"
        ) from None


def require_buffers(layers: Sequence[Layer], arrays: Mapping[str, Any], source: str) -> None:
    """Refuse arrays from a file without the layers' buffers: the saved network did not have the initial ones.

    Raises:
        ParameterError: naming those that are missing.
    """
    expected = [f"{index}.{name}" for index, layer in enumerate(layers) for name in layer.buffer_shapes()]
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise ParameterError(
            f"{source} lacks {', '.join(missing)}",
            allowed="a file with the statistics of every BatchNorm: without them the outputs would be others",
            remedy="save it again with its buffers, as torch.save(module.state_dict(), path) does",
        )
