"""Ways to draw a model's weights anew: He, Glorot, or a given variance.

Biases, scales and embeddings begin as they do in a new `Model`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from udlbridge.errors import OptionError
from udlbridge.initialise import fans, initial_parameters
from udlbridge.layers import Shape
from udlbridge.model import Model


def _redrawn(model: Model, seed: int, variance: Callable[[Shape], float], distribution: str) -> Model:
    generator = np.random.default_rng(seed)
    params = initial_parameters(model.layers, seed, model.dtype.name)
    starts = {f"{i}.{name}": layer.start(name) for i, layer in enumerate(model.layers) for name in layer.param_shapes()}
    for name, value in params.items():
        if starts[name] != "glorot":
            continue
        sigma = np.sqrt(variance(value.shape))
        if distribution == "normal":
            drawn = sigma * generator.standard_normal(value.shape)
        elif distribution == "uniform":
            drawn = generator.uniform(-np.sqrt(3) * sigma, np.sqrt(3) * sigma, size=value.shape)
        else:
            raise OptionError(f"distribution={distribution!r}", allowed="normal, uniform", remedy="choose one of them")
        params[name] = drawn.astype(model.dtype)
    return model.with_params(params)


def he(model: Model, seed: int = 0, distribution: str = "normal") -> Model:
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


def glorot(model: Model, seed: int = 0, distribution: str = "normal") -> Model:
    """Weights of variance 2 / (fan_in + fan_out). Arguments and errors as `he`.

    Source: Glorot and Bengio (2010), equation 12.
    """
    return _redrawn(model, seed, lambda shape: 2.0 / sum(fans(shape)), distribution)


def normal(model: Model, variance: float, seed: int = 0) -> Model:
    """Normal weights of one given variance. Raises `OptionError` if it is not positive; otherwise as `he`."""
    if not (np.isfinite(variance) and variance > 0):
        raise OptionError(f"variance={variance}", allowed="a positive number", remedy="correct it")
    return _redrawn(model, seed, lambda shape: variance, "normal")
