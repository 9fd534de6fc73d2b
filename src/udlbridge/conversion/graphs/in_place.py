"""Operations that write to what they get, as `relu_`, where nobody sees the difference: as those that do not write.

Torch writes a whole program anew to be rid of them, which takes three times as long as exporting it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

FRESH = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul"),
    *("batch_norm", "instance_norm", "group_norm", "layer_norm", "cat", "add", "sub", "mul", "div"),
    *("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
}
"""What always gives a tensor of its own, none of its inputs and no view of one, whatever its settings are."""


def without_writes(program: ExportedProgram) -> None:
    """Replace operations that write to a new tensor which nobody else has."""
    changed = False
    for node in program.graph.nodes:
        plain = _plain(node) if node.op == "call_function" else None
        if plain is not None and _alone(node):
            node.target, changed = plain, True
    if changed:
        program.graph_module.recompile()


def _plain(node: fx.Node) -> Any:
    """The operation of the same arguments that does not write, if this one writes to its first argument alone."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable or target.namespace != "aten" or not schema.name.endswith("_"):
        return None
    overloads: Any = getattr(torch.ops.aten, schema.name.removeprefix("aten::")[:-1], None)
    found: Any = getattr(overloads, target._overloadname, None)
    if found is None or [one.name for one in found._schema.arguments[1:]] != [one.name for one in schema.arguments[1:]]:
        return None
    return None if found._schema.is_mutable else found


def _alone(node: fx.Node) -> bool:
    """Whether what is written to is new, and read by nothing else; and of the dtype that comes out without writing."""
    written = node.args[0]
    if not isinstance(written, fx.Node) or list(written.users) != [node]:
        return False
    made: Any = written.target
    if written.op != "call_function" or getattr(getattr(made, "overloadpacket", None), "__name__", "") not in FRESH:
        return False
    values = [one.meta.get("val") for one in node.all_input_nodes]
    return len({value.dtype for value in values if isinstance(value, Tensor)}) == 1
