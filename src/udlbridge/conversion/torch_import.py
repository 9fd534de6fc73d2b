"""Networks from PyTorch's modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from udlbridge.backends.pytorch.checks import TRANSLATED, check_call, check_inference, check_numbers, check_parameters
from udlbridge.conversion.torch_export import BatchStatistics, LayerModule, ResidualModule
from udlbridge.errors import ConversionError, UDLBridgeError
from udlbridge.networks.layers import (
    Activation,
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalMeanPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LogSoftmax,
    MaxPool,
    MeanPool,
    Residual,
    Softmax,
    check_chain,
)
from udlbridge.networks.layers.settings import ActivationWord
from udlbridge.networks.model import Model
from udlbridge.texts import kind_of

Translated = tuple[Layer, dict[str, Tensor]]


class Part(NamedTuple):
    """A translated module: its path, its layer, and the layer's arrays by name."""

    path: str
    layer: Layer
    arrays: dict[str, Tensor]


def from_torch(module: object, *, inference: bool = False) -> Model:
    """As `udlbridge.from_torch` without an example.

    Raises:
        ConversionError: as `udlbridge.from_torch`.
    """
    if not isinstance(module, nn.Module):
        raise ConversionError(
            f"from_torch got {kind_of(module)}", allowed="a torch.nn.Module", remedy="pass the network itself"
        )
    if not inference:
        check_inference(module, TRANSLATED)
    check_parameters(module)
    parts: list[Part] = []
    _translate(module, "", parts)
    check_numbers(module)
    layers = [part.layer for part in parts]
    try:
        check_chain(layers, [part.path for part in parts])
    except UDLBridgeError as error:
        raise ConversionError(error.given, allowed=error.allowed, remedy=error.remedy) from None
    params = {
        f"{index}.{name}": value.detach().cpu().numpy()
        for index, part in enumerate(parts)
        for name, value in part.arrays.items()
    }
    return Model(layers, params) if params else Model(layers)


def _translate(module: nn.Module | None, path: str, parts: list[Part]) -> None:
    """Append everything inside that computes, in order of evaluation, to the parts before it."""
    where = path or "the module itself"
    try:
        sequential = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
        known = (ResidualModule, nn.Softmax, nn.LogSoftmax, *MODULES)
        if module is None or not (sequential or type(module) in known):
            raise _UnfitError(f"{type(module).__name__} has no translation")
        check_call(module, where)
        if sequential:
            # Unlike `named_children`, which leaves out a module that it has seen: each place is evaluated.
            for name, child in module._modules.items():
                _translate(child, f"{path}.{name}" if path else name, parts)
            return
        if isinstance(module, ResidualModule):
            found: Translated | None = _residual(module, path)
        elif isinstance(module, nn.Softmax | nn.LogSoftmax):
            found = _softmax(module, [part.layer for part in parts])
        else:
            found = MODULES[type(module)](module)
    except _UnfitError as reason:
        raise ConversionError(
            f"{where}: {reason}",
            allowed="nn.Sequential of "
            + ", ".join(sorted(c.__name__ for c in known if c.__module__.startswith("torch."))),
            remedy="rewrite that part, or use ub.ntk(module, x, backend='torch'), which takes any module",
        ) from None
    except ConversionError:
        raise  # it has a path already, of a module inside
    except UDLBridgeError as error:
        raise ConversionError(f"{where}: {error.given}", allowed=error.allowed, remedy=error.remedy) from None
    if found is not None:
        parts.append(Part(where, *found))


class _UnfitError(Exception):
    """Why a module has no translation."""


def _need(holds: bool, words: str) -> None:
    if not holds:
        raise _UnfitError(words)


def _own(module: nn.Module, *names: str) -> dict[str, Tensor]:
    """Arrays of a module by name, without those that it does not have."""
    values = {name: getattr(module, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _linear(m: nn.Linear) -> Translated:
    return Dense(m.in_features, m.out_features, bias=m.bias is not None), _own(m, "weight", "bias")


def _convolution(m: nn.Conv1d | nn.Conv2d) -> Translated:
    _need(m.padding_mode == "zeros", f"{type(m).__name__} with padding_mode={m.padding_mode!r}")
    layer = (Conv1d if isinstance(m, nn.Conv1d) else Conv2d)(
        m.in_channels,
        m.out_channels,
        tuple(m.kernel_size),
        stride=tuple(m.stride),
        padding=m.padding if isinstance(m.padding, str) else tuple(m.padding),
        dilation=tuple(m.dilation),
        groups=m.groups,
        bias=m.bias is not None,
    )
    return layer, _own(m, "weight", "bias")


def _extent(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _maxpool(m: nn.MaxPool1d | nn.MaxPool2d) -> Translated:
    dims = 1 if isinstance(m, nn.MaxPool1d) else 2
    plain = m.dilation in (1, (1,) * dims) and not m.ceil_mode and not m.return_indices
    _need(plain, f"{type(m).__name__} with dilation, ceil_mode or return_indices")
    return MaxPool(_extent(m.kernel_size, dims), _extent(m.stride, dims), _extent(m.padding, dims)), {}


def _meanpool(m: nn.AvgPool1d | nn.AvgPool2d) -> Translated:
    dims = 1 if isinstance(m, nn.AvgPool1d) else 2
    padding = _extent(m.padding, dims)
    whole = m.count_include_pad or not any(padding)
    plain = whole and not m.ceil_mode and getattr(m, "divisor_override", None) is None
    _need(plain, f"{type(m).__name__} with ceil_mode, divisor_override or count_include_pad=False")
    return MeanPool(_extent(m.kernel_size, dims), _extent(m.stride, dims), padding), {}


def _globalmeanpool(m: nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d) -> Translated:
    _need(m.output_size in (1, (1,), (1, 1)), f"{type(m).__name__}({m.output_size}): only 1 is a global mean")
    return GlobalMeanPool(), {}


def _layernorm(m: nn.LayerNorm) -> Translated:
    _need((m.weight is None) == (m.bias is None), "LayerNorm with a weight and no bias")
    return LayerNorm(tuple(m.normalized_shape), m.eps, m.weight is not None), _own(m, "weight", "bias")


def _groupnorm(m: nn.GroupNorm) -> Translated:
    return GroupNorm(m.num_groups, m.num_channels, m.eps, m.affine), _own(m, "weight", "bias")


def _batchnorm(m: nn.BatchNorm1d | nn.BatchNorm2d | BatchStatistics) -> Translated:
    _need(m.running_mean is not None, f"{type(m).__name__} without running statistics has no inference mode")
    return BatchNorm(m.num_features, m.eps, m.affine), _own(m, "weight", "bias", "running_mean", "running_var")


def _embedding(m: nn.Embedding) -> Translated:
    plain = m.padding_idx is None and m.max_norm is None
    _need(plain, "Embedding with padding_idx or max_norm")
    return Embedding(m.num_embeddings, m.embedding_dim), _own(m, "weight")


def _flatten(m: nn.Flatten) -> Translated:
    _need((m.start_dim, m.end_dim) == (1, -1), f"Flatten({m.start_dim}, {m.end_dim}) does not flatten whole samples")
    return Flatten(), {}


def _softmax(m: nn.Softmax | nn.LogSoftmax, before: list[Layer]) -> Translated:
    # After a Flatten a sample is a vector, whatever its shape was, and stays one.
    last = m.dim == -1 or (m.dim == 1 and any(isinstance(layer, Flatten) for layer in before))
    _need(last, f"{type(m).__name__}(dim={m.dim}): the last axis is only dim=-1, or dim=1 after a Flatten")
    return Softmax() if isinstance(m, nn.Softmax) else LogSoftmax(), {}


def _activation(name: str, **settings: Any) -> Callable[[Any], Translated]:
    def translate(m: nn.Module) -> Translated:
        given = {key: getattr(m, key) for key in settings}
        _need(given == settings, f"{type(m).__name__} with {given}, where {settings} is {name!r}")
        return Activation(cast(ActivationWord, name)), {}

    return translate


def _softplus(m: nn.Softplus) -> Translated:
    # Above its threshold torch takes z itself, which from 20 on (the default) is less by up to 2e-9.
    exact = m.beta == 1 and m.threshold >= 20
    _need(exact, f"Softplus with beta={m.beta} and threshold={m.threshold}: only 1 and at least 20 are exact")
    return Activation("softplus"), {}


def _gelu(m: nn.GELU) -> Translated:
    return Activation("gelu_tanh" if m.approximate == "tanh" else "gelu_erf"), {}


def _residual(m: ResidualModule, path: str) -> Translated:
    inside: dict[str, list[Part]] = {"layers": [], "shortcut": []}
    for name, parts in inside.items():
        _translate(getattr(m, name), f"{path}.{name}" if path else name, parts)
    arrays = {
        f"{prefix}{index}.{name}": value
        for prefix, parts in (("", inside["layers"]), ("shortcut.", inside["shortcut"]))
        for index, part in enumerate(parts)
        for name, value in part.arrays.items()
    }
    return Residual(*([part.layer for part in parts] for parts in inside.values())), arrays


def _dropout(m: nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.AlphaDropout) -> Translated:
    return Dropout(m.p), {}


MODULES: dict[type[nn.Module], Callable[[Any], Translated | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.MaxPool1d: _maxpool,
    nn.MaxPool2d: _maxpool,
    nn.AvgPool1d: _meanpool,
    nn.AvgPool2d: _meanpool,
    nn.AdaptiveAvgPool1d: _globalmeanpool,
    nn.AdaptiveAvgPool2d: _globalmeanpool,
    nn.LayerNorm: _layernorm,
    nn.GroupNorm: _groupnorm,
    nn.BatchNorm1d: _batchnorm,
    nn.BatchNorm2d: _batchnorm,
    BatchStatistics: _batchnorm,
    nn.Embedding: _embedding,
    nn.Flatten: _flatten,
    nn.Identity: lambda m: None,
    nn.Dropout: _dropout,
    nn.Dropout1d: _dropout,
    nn.Dropout2d: _dropout,
    nn.AlphaDropout: _dropout,
    nn.ReLU: _activation("relu"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Tanh: _activation("tanh"),
    nn.GELU: _gelu,
    nn.Softplus: _softplus,
    nn.SiLU: _activation("swish"),
    nn.ELU: _activation("elu", alpha=1.0),
    nn.LeakyReLU: _activation("leakyrelu", negative_slope=0.01),
    nn.SELU: _activation("selu"),
    nn.Mish: _activation("mish"),
    LayerModule: lambda m: (m.layer, m.arrays()),
}
"""The registry: a class of modules, and what makes a layer of one; softmax, which minds what comes before, aside.

None stands for a module that does nothing."""
