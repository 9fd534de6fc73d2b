"""Parameters from a seed, by NumPy alone, so that every engine starts from the same bytes.

`he`, `glorot`, `normal` and `torch_default` draw a model's weights anew. Except in the last, biases, scales
and embeddings begin as in a new `Model`.

Examples:
    >>> model = ub.init.he(ub.Model([ub.Dense(1000, 1000)]), seed=0)
    >>> bool(abs(model.params["0.weight"].std() - (2 / 1000) ** 0.5) < 1e-4)
    True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np

from udlbridge.errors import OptionError
from udlbridge.networks.layers import Layer, Shape, Start
from udlbridge.networks.torch_draws import TorchGenerator as TorchGenerator
from udlbridge.options import checked_choice, checked_count, checked_positive
from udlbridge.texts import completion

__all__ = ["glorot", "he", "normal", "torch_default"]
__dir__ = completion(__all__)

FLOATS: dict[str, np.dtype[np.floating]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def fans(shape: Shape) -> tuple[int, int]:
    """Inputs and outputs of one unit: (out, in, *kernel) gives (in * prod kernel, out * prod kernel)."""
    kernel = int(np.prod(shape[2:], dtype=np.int64))
    return shape[1] * kernel, shape[0] * kernel


def initial_parameters(layers: Sequence[Layer], seed: int, dtype: str) -> dict[str, np.ndarray]:
    """Parameters as each layer's `start` says, drawn in the order of the layers.

    "glorot": a weight of shape (out, in, *kernel) is uniform in +-sqrt(6 / (fan_in + fan_out)). "normal": mean 0,
    variance 1 (embeddings). "zeros" (biases) and "ones" (scales of norms). Numbers are drawn in float64 and rounded, so
    that the float32 model is the rounded float64 model.

    Raises:
        OptionError: a seed that is not a whole number of at least 0.

    Source: Glorot and Bengio (2010), equation 16.
    """
    generator = np.random.default_rng(checked_count("seed", seed, 0))
    params: dict[str, np.ndarray] = {}
    for index, layer in enumerate(layers):
        for name, shape in layer.param_shapes().items():
            params[f"{index}.{name}"] = _initial(layer.start(name), shape, generator).astype(FLOATS[dtype])
    return params


def initial_buffers(layers: Sequence[Layer], dtype: str) -> dict[str, np.ndarray]:
    """Buffers before any training: means of zero and variances of one."""
    return {
        f"{index}.{name}": (np.ones if layer.start(name) == "ones" else np.zeros)(shape, dtype=FLOATS[dtype])
        for index, layer in enumerate(layers)
        for name, shape in layer.buffer_shapes().items()
    }


def _initial(start: Start, shape: Shape, generator: np.random.Generator) -> np.ndarray:
    if start == "glorot":
        fan_in, fan_out = fans(shape)
        bound = np.sqrt(6.0 / (fan_in + fan_out))
        return generator.uniform(-bound, bound, size=shape)
    if start == "normal":
        return generator.standard_normal(shape)
    return np.ones(shape) if start == "ones" else np.zeros(shape)


class Redrawable(Protocol):
    """What can have its weights drawn anew; `Model`, which stands above this file, can."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in order of evaluation."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of every parameter."""

    def with_params(self, params: Mapping[str, np.ndarray]) -> Self:
        """The same layers with other parameters."""


M = TypeVar("M", bound=Redrawable)


def _redrawn(model: M, seed: int, variance: Callable[[Shape], float], distribution: str) -> M:
    checked_choice("distribution", distribution, ("normal", "uniform"))
    generator = np.random.default_rng(checked_count("seed", seed, 0))
    params = initial_parameters(model.layers, seed, model.dtype.name)
    starts = {f"{i}.{name}": layer.start(name) for i, layer in enumerate(model.layers) for name in layer.param_shapes()}
    for name, value in params.items():
        if starts[name] != "glorot":
            continue
        sigma = np.sqrt(variance(value.shape))
        if distribution == "normal":
            drawn = sigma * generator.standard_normal(value.shape)
        else:
            drawn = generator.uniform(-np.sqrt(3) * sigma, np.sqrt(3) * sigma, size=value.shape)
        params[name] = drawn.astype(model.dtype)
    return model.with_params(params)


def he(model: M, seed: int = 0, distribution: str = "normal") -> M:
    """Weights of variance 2 / fan_in, which keeps the size of signals through relu layers.

    Args:
        model: the network whose layers are kept.
        seed: for `numpy.random.default_rng`.
        distribution: "normal" or "uniform".

    Returns:
        The same layers with new weights; biases are as `Model` first sets them.

    Raises:
        OptionError: another distribution.

    Source: He, Zhang, Ren, Sun (2015), equation 10.
    """
    return _redrawn(model, seed, lambda shape: 2.0 / fans(shape)[0], distribution)


def glorot(model: M, seed: int = 0, distribution: str = "normal") -> M:
    """Weights of variance 2 / (fan_in + fan_out). Arguments and errors as `he`.

    Source: Glorot and Bengio (2010), equation 12.
    """
    return _redrawn(model, seed, lambda shape: 2.0 / sum(fans(shape)), distribution)


def torch_default(model: M, seed: int | TorchGenerator = 0) -> M:
    """The weights that PyTorch gives the same layers, made one after another after `torch.manual_seed(seed)` on a CPU.

    Weights and biases of Dense layers and of convolutions are uniform in +-1 / sqrt(fan_in). They are drawn in float32,
    bit for bit as torch draws them, without torch; a float64 model has the same numbers. Norms begin at one and zero.

    Args:
        model: the network whose layers are kept.
        seed: as of `torch.manual_seed`; or a `TorchGenerator`, which goes on from where it is.

    Raises:
        OptionError: a layer that PyTorch starts in another way (Embedding, LearnedPositions, SelfAttention), inside
            others too; or a seed that is not a whole number of at least 0.
    """
    generator = seed if isinstance(seed, TorchGenerator) else TorchGenerator(checked_count("seed", seed, 0))
    params: dict[str, np.ndarray] = {}
    for index, layer in enumerate(model.layers):
        shapes = layer.param_shapes()
        for name, shape in shapes.items():
            owner = name.removesuffix("weight").removesuffix("bias")
            weight = shapes.get(f"{owner}weight", ())
            start = layer.start(name)
            if start == "ones" or (start == "zeros" and len(weight) < 2):
                params[f"{index}.{name}"] = np.full(shape, float(start == "ones"), dtype=model.dtype)
            elif start == "normal" or not name.endswith(("weight", "bias")) or "proj" in name:
                raise OptionError(
                    f"layer {index} ({type(layer).__name__}) in torch_default",
                    allowed="Dense layers, convolutions, norms, and layers without parameters",
                    remedy="give these weights yourself, or start from init.he or init.glorot",
                )
            elif name.endswith("weight"):
                params[f"{index}.{name}"] = generator.kaiming_uniform(shape, slope=np.sqrt(5.0)).astype(model.dtype)
            else:
                bound = 1 / np.sqrt(fans(weight)[0])
                params[f"{index}.{name}"] = generator.uniform(shape, -bound, bound).astype(model.dtype)
    return model.with_params(params)


def normal(model: M, variance: float, seed: int = 0) -> M:
    """Normal weights of one given variance. Raises `OptionError` if it is not positive; otherwise as `he`."""
    positive = checked_positive("variance", variance)
    return _redrawn(model, seed, lambda shape: positive, "normal")
