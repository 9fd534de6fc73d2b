"""Kernels between the rows of two arrays, as scikit-learn's functions take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from udlbridge.arrays import as_array
from udlbridge.errors import OptionError, ShapeError
from udlbridge.infinite.kernels import kernels
from udlbridge.kernels.ntk import ntk
from udlbridge.kernels.request import as_network
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import is_julia, is_module
from udlbridge.networks.layers import Activation, Dense, Layer
from udlbridge.networks.layers.settings import ActivationWord
from udlbridge.networks.model import Model
from udlbridge.options import brief, checked_count
from udlbridge.texts import kind_of
from udlbridge.words import EngineWord

Network = str | Any | Callable[[int], Any]
"""What an estimator takes for its network: "infinite", a network, or a function of the number of features."""


def network_kernel(
    x1: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    network: Network = "infinite",
    depth: int = 2,
    activation: str = "relu",
    w_std: float = 2.0**0.5,
    b_std: float = 0.1,
    backend: EngineWord | None = None,
) -> Float[np.ndarray, "n m"]:
    """The NTK between samples: for `sklearn.metrics.pairwise`, `SVC(kernel=...)`, `KernelRidge(kernel=...)`.

    Args:
        x1, x2: samples (n, features) and (m, features), or what the network takes; None means `x1`.
        network: "infinite", the NTK of `depth` infinitely wide hidden layers; a network, as a Model or a
            `torch.nn.Module`, the mean over outputs of its empirical NTK; or a function that makes one for a number of
            features.
        depth, activation, w_std, b_std: of the infinite network, as for `udlbridge.infinite.kernels`.
        backend: the engine for a network.

    Returns:
        (n, m), float64.

    Raises:
        OptionError, ConversionError: what is wrong with the network or its options.
        InputError: what is wrong with the samples.

    Example: `SVC(kernel=functools.partial(network_kernel, depth=3))`.
    """
    left = as_array(x1, "x1")
    right = None if x2 is None or x2 is x1 else as_array(x2, "x2")
    if not left.ndim:
        raise ShapeError("x1 is a number", allowed="samples (n, *D)", remedy="give an array with a row for each sample")
    if isinstance(network, str) and network == "infinite":
        layers = _infinite(left.shape[-1], depth, activation)
        pair = [None if x is None else _converted(x, np.float64) for x in (left, right)]
        found = kernels(layers, pair[0], pair[1], w_std=w_std, b_std=b_std, get="ntk").ntk  # type: ignore[arg-type]
        assert found is not None  # it was asked for
        return found
    model = network_for(network, left.shape[-1])
    if model.takes_tokens:
        return ntk(model, left, right, outputs="mean", backend=backend).astype(np.float64)
    own = [None if x is None else _converted(x, model.dtype) for x in (left, right)]
    return ntk(model, own[0], own[1], outputs="mean", backend=backend).astype(np.float64)


def is_network(value: object) -> bool:
    """Whether every function that takes a `Model` takes this; functions that make one are none."""
    return isinstance(value, Model | ForeignNetwork) or is_module(value) or is_julia(value)


def network_for(network: Any, features: int) -> Model | ForeignNetwork:
    """The network that `network` is, or makes for so many features.

    Raises:
        OptionError: it is neither a network nor makes one.
        ConversionError: as `udlbridge.as_network`.
    """
    model = network(features) if callable(network) and not is_network(network) else network
    if is_network(model):
        found: Model | ForeignNetwork = as_network(model)
        return found
    raise OptionError(
        f"network={brief(network)}" if model is network else f"a network function that returned {kind_of(model)}",
        allowed='"infinite", a network (Model, Graph, torch.nn.Module), or a function of the features that returns one',
        remedy="as network=lambda d: ub.Model([ub.Dense(d, 64, 'relu'), ub.Dense(64, 1)])",
    )


def _converted(x: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Samples in the dtype of the network; complex ones as they are, for they are refused."""
    return x if x.dtype.kind == "c" else x.astype(dtype)


def _infinite(features: int, depth: int, activation: str) -> list[Layer]:
    hidden: list[Layer] = []
    width = features
    for _ in range(checked_count("depth", depth, 0)):
        hidden += [Dense(width, 1), Activation(cast(ActivationWord, activation))]
        width = 1
    return [*hidden, Dense(width, 1)]
