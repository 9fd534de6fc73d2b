"""Networks from and to PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from udlbridge import backends
from udlbridge.errors import ConversionError, OptionError
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import check_model, is_module
from udlbridge.networks.model import Model
from udlbridge.options import brief, checked_flag
from udlbridge.texts import kind_of

if TYPE_CHECKING:
    from torch import nn


@overload
def from_torch(module: nn.Module | Any, x: None = None, *, inference: bool = False) -> Model: ...
@overload
def from_torch(module: nn.Module | Any, x: Any, *, inference: bool = False, output: Any = None) -> Graph: ...
def from_torch(module: nn.Module | Any, x: Any = None, *, inference: bool = False, output: Any = None) -> Model | Graph:
    """A PyTorch module as a network of this package: a `Graph` where there is an example `x`, else a `Model`.

    With `x`, torch.export captures what the module computes, and each of its operations becomes one of a graph; the
    module is not changed, and needs no change. Parameters keep their names; a shared one counts once, under its first
    name, and a frozen one is a buffer. The number of samples is open afterwards, the shape of one is that of the
    example. On it the graph is proved to give the module's outputs and gradients. A graph runs on every engine. Of a
    module of several inputs it is a graph of several, which takes them as the example has them, by name or by position.

    Without `x` the result is a `Model` with the layers and copies of the weights, for all engines.

    Understood without `x`: `nn.Sequential`, nested to any depth; Linear, Conv1d, Conv2d, the max and average pools,
    adaptive pools to size 1, LayerNorm, GroupNorm, BatchNorm1d and 2d, Dropout (1d, 2d and Alpha too), Flatten,
    Embedding, Identity, the activations, Softmax and LogSoftmax over the last axis (dim=-1, or dim=1 after a Flatten);
    and whatever `to_torch` makes. The layers are numbered in order of evaluation. Softplus becomes the exact function,
    which torch leaves above its threshold (at least 20) by up to 2e-9. For what has no translation there is
    `ub.ntk(module, x)`, which needs none.

    Args:
        module: the network.
        x: samples (n, *D) of the module's dtype, or whole numbers; of several inputs a dict of arrays by name, as
            forward calls them, or a tuple of arrays by position, with the samples first in each; None for a `Model`.
        inference: take a network in training mode as it is in inference.
        output: which of its outputs counts, where forward gives several, as for `udlbridge.as_network`; with `x`.

    Raises:
        ConversionError: with `x`, what torch.export cannot capture, and an operation that has no translation, by the
            path of its module and the line of code; outputs that are random, or where samples touch each other;
            backward passes that are not the derivatives of forward, by the parameter whose gradient shows it. Without
            it, a module that has no translation, or does not fit after the others, by its path inside `module`; shared
            or frozen parameters. In both, weights that are neither float32 nor float64, of several dtypes,
            without numbers (on the meta device) or not finite; a network in training mode whose outputs differ there
            from inference.
        InputError, ShapeError, DTypeError: what is wrong with `x`.
        OptionError: `inference` is not a truth value; `output` without `x`.
        TorchUnavailable: PyTorch is not installed.

    Examples:
        >>> from torch import nn
        >>> ub.from_torch(nn.Sequential(nn.Linear(2, 3), nn.Tanh())).n_params
        9
        >>> x = (np.ones((4, 2), "float32"), np.zeros((4, 3), "float32"))
        >>> graph = ub.from_torch(nn.Bilinear(2, 3, 1), x)
        >>> ub.ntk(graph, x).shape
        (4, 4)
    """
    backends.require_torch()
    if x is not None:
        if not is_module(module):
            raise ConversionError(
                f"from_torch got {kind_of(module)}",
                allowed="a torch.nn.Module",
                remedy="pass the network itself",
            )
        from udlbridge.conversion.graphs.capture import captured

        return captured(module, x, inference=checked_flag("inference", inference), output=output)
    if output is not None:
        raise OptionError(
            f"output={brief(output)} without samples",
            allowed="output= with x, an example of samples",
            remedy="give the example: ub.from_torch(module, x, output=...)",
        )
    from udlbridge.conversion import torch_import

    return torch_import.from_torch(module, inference=checked_flag("inference", inference))


@overload
def to_torch(model: Model) -> nn.Sequential: ...
@overload
def to_torch(model: Graph) -> nn.Module: ...
def to_torch(model: Model | Graph) -> nn.Module:
    """The network as a PyTorch module in inference mode, with copies of parameters and buffers.

    A `Model` becomes a `torch.nn.Sequential`; a `Graph` a module with the graph's names in its state dict, all of them
    where a parameter is shared, so that the state dict of the module that it came from can be loaded. Of several
    inputs, it takes them as that module does: by position, or by name.

    Raises:
        OptionError: `model` is neither.
        TorchUnavailable: PyTorch is not installed.

    Examples:
        >>> module = ub.to_torch(ub.Model([ub.Dense(2, 3, "tanh")]))
        >>> sorted(module.state_dict())
        ['0.bias', '0.weight']
    """
    if isinstance(model, Graph):
        backends.require_torch()
        from udlbridge.backends.pytorch.graphs.module import graph_module

        return graph_module(model, aliases=True)
    check_model(model)
    backends.require_torch()
    from udlbridge.conversion import torch_export

    return torch_export.to_torch(model)
