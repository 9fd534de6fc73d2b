"""Model files of either format: layers or graphs."""

from __future__ import annotations

import json
import os

from udlbridge.errors import ModelFileError
from udlbridge.networks.files import read_safetensors
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model
from udlbridge.networks.specs import GRAPH_FORMATS
from udlbridge.paths import user_path


def load_network(path: str | os.PathLike[str]) -> Model | Graph:
    """The `Model` or the `Graph` in a file that one of them saved. Nothing in the file can execute code.

    Raises:
        As `Model.load` and `Graph.load`.
    """
    metadata, arrays = read_safetensors(user_path(path), "model", ModelFileError)
    spec = metadata.get("udlbridge", "")
    return (Graph if is_graph(spec) else Model).from_spec(spec, arrays, str(path))


def is_graph(spec: str | None) -> bool:
    """Whether the JSON text that a file has for its network is that of a graph."""
    try:
        return bool(json.loads(spec or "")["format"] in GRAPH_FORMATS)
    except (KeyError, TypeError, ValueError, RecursionError):
        return False  # and no model either, which its own reader says
