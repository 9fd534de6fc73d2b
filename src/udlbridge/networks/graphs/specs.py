"""Specs of graphs: nodes and names as JSON text, as model files hold them. Format 2, of several inputs 3; layers 1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from udlbridge.errors import ModelFileError
from udlbridge.networks.graphs.attributes import as_json
from udlbridge.networks.graphs.node import Node
from udlbridge.networks.specs import FORMAT_VERSION, GRAPH_FORMAT, GRAPH_FORMATS, INPUTS_FORMAT

if TYPE_CHECKING:
    from udlbridge.networks.graphs.graph import Graph


def graph_spec(graph: Graph) -> dict[str, Any]:
    """Everything but the arrays, as JSON-ready data."""
    if graph.takes_several:
        inputs = graph.inputs.items()
        samples: dict[str, Any] = {
            "format": INPUTS_FORMAT,
            "inputs": [{"name": name, "shape": list(value.shape), "kind": value.kind} for name, value in inputs],
        }
    else:
        samples = {"format": GRAPH_FORMAT, "sample_shape": list(graph.sample_shape), "tokens": graph.takes_tokens}
    return {
        **samples,
        "dtype": graph.dtype.name,
        "params": list(graph.params),
        "buffers": list(graph.buffers),
        "aliases": dict(graph.aliases),
        "output": graph.output,
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "inputs": list(node.inputs),
                "attributes": {name: as_json(value) for name, value in node.attributes.items()},
                "source": node.source,
            }
            for node in graph.nodes
        ],
    }


def parsed_graph(spec: str, source: str) -> dict[str, Any]:
    """The parts of a spec in JSON text, of the types that a graph takes; what they say is checked by the graph.

    Raises:
        ModelFileError: no spec, another format, or parts of other types; it names `source`.
    """
    try:
        found = json.loads(spec)
        version = found["format"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ModelFileError(
            f"{source} has no udlbridge spec", allowed="a file written by graph.save", remedy="save the graph again"
        ) from None
    if version not in GRAPH_FORMATS:
        layers = version == FORMAT_VERSION
        raise ModelFileError(
            f"{source} has format {version}{', a list of layers' if layers else ''}",
            allowed=f"format {' or '.join(map(str, GRAPH_FORMATS))}, a graph",
            remedy="read it with ub.Model.load" if layers else "update udlbridge",
        )
    try:
        return {
            "dtype": _text(found["dtype"]),
            "samples": _samples(found) if version == GRAPH_FORMAT else {"inputs": _inputs(found["inputs"])},
            "params": _texts(found["params"]),
            "buffers": _texts(found["buffers"]),
            "aliases": {_text(name): _text(own) for name, own in _dict(found["aliases"]).items()},
            "output": _text(found["output"]),
            "nodes": [_node(node) for node in _list(found["nodes"])],
        }
    except (KeyError, TypeError) as error:
        raise ModelFileError(
            f"{source} has a spec without a part, or with one of another type ({error})",
            allowed="a file written by graph.save",
            remedy="save the graph again",
        ) from None


def _samples(found: dict[str, Any]) -> dict[str, Any]:
    """The settings of a graph of one input."""
    return {"sample_shape": [_size(size) for size in _list(found["sample_shape"])], "tokens": bool(found["tokens"])}


def _inputs(listed: Any) -> dict[str, tuple[list[int], str]]:
    """Shape and kind of each of several inputs by name."""
    names = [_text(one["name"]) for one in map(_dict, _list(listed))]
    if len(set(names)) != len(names):
        raise TypeError("an input twice")
    shapes = [[_size(size) for size in _list(one["shape"])] for one in listed]
    return {name: (shape, _text(one["kind"])) for name, shape, one in zip(names, shapes, listed, strict=True)}


def _node(value: Any) -> Node:
    return Node(
        _text(value["name"]),
        _text(value["op"]),
        tuple(_texts(value["inputs"])),
        _dict(value["attributes"]),
        _text(value["source"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} in the place of a word")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:40]!r} in the place of a list")
    return value


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{str(value)[:40]!r} in the place of a mapping")
    return value


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in _list(value)]


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**40:
        raise TypeError(f"{str(value)[:40]!r} in the place of an extent")
    return value
