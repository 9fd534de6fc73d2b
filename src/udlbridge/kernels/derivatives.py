"""Outputs of a network and their derivatives, with respect to parameters and to inputs, on any engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.errors import InputError, LayerError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.request import as_network, check_curvature, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples, output_size
from udlbridge.networks.model import Model
from udlbridge.words import EngineWord


def outputs(model: Model | Any, x: Any, *, backend: EngineWord | None = None, output: Any = None) -> np.ndarray:
    """f(x) in inference mode.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        backend: "torch", "julia" or "reference"; None is the default of `udlbridge.backends.default_name`.
        output: which of the outputs of a module counts, as for `udlbridge.as_network`.

    Returns:
        (n, *out), of the model's dtype; of a module (n, O), with the axes after the first in C order.

    Raises:
        InputError, ShapeError, DTypeError: what is wrong with `x`.
        UnknownBackend, BackendUnavailable: what is wrong with `backend`.

    Examples:
        >>> ub.outputs(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS).shape
        (2, 1)
    """
    model = as_network(model, output=output)
    batch = checked_samples(model, x)
    return backends.get(checked_engine(model, backend)).outputs(model, batch)


def jacobian(
    model: Model | Any, x: Any, *, backend: EngineWord | None = None, output: Any = None
) -> dict[str, np.ndarray]:
    """J[i, a, ...] = d f_a(x_i) / d theta, in named blocks.

    Args:
        model: the network, with one vector of O outputs per sample.
        x: samples (n, *D), of the model's dtype.
        backend, output: as for `outputs`.

    Returns:
        A block (n, O, *parameter shape) for every parameter's name. Together they hold n O P numbers.

    Raises:
        As `outputs`; ConversionError for a module or graph whose outputs cannot be followed to its parameters;
        NumericalError where a derivative is not finite.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 1)])
        >>> {name: block.shape for name, block in ub.jacobian(model, np.eye(2, dtype="float32")).items()}
        {'0.weight': (2, 1, 3, 2), '0.bias': (2, 1, 3), '1.weight': (2, 1, 1, 3), '1.bias': (2, 1, 1)}
    """
    model = as_network(model, output=output)
    batch = checked_samples(model, x)
    output_size(model, batch.shape[1:])
    if isinstance(model, ForeignNetwork):
        model.check_derivatives(model.param_shapes())
    blocks = backends.get(checked_engine(model, backend)).jacobian(model, batch)
    for name, block in blocks.items():
        check_finite(block, f"the Jacobian by {name}")
    return blocks


def input_jacobian(
    model: Model | Any, x: Any, *, backend: EngineWord | None = None, output: Any = None
) -> Float[np.ndarray, "n outputs *features"]:
    """d f_a(x_i) / d x_i, the derivatives of the outputs with respect to the inputs.

    Args:
        model: the network, with one vector of O outputs per sample.
        x: samples (n, *D), of the model's dtype.
        backend, output: as for `outputs`.

    Returns:
        (n, O, *D), of the model's dtype.

    Raises:
        As `outputs`; InputError for a model that takes tokens; ConversionError for a module or graph whose outputs
        cannot be followed to its samples; NumericalError where a derivative is not finite.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 1)], dtype="float64")
        >>> bool(np.allclose(ub.input_jacobian(model, np.eye(2))[0], model.params["0.weight"]))
        True
    """
    model = as_network(model, output=output)
    batch = checked_samples(model, x)
    if model.takes_tokens:
        raise InputError(
            "the samples are tokens, or several inputs, which have no derivatives",
            allowed="models of real numbers",
            remedy="take the Jacobian with respect to the parameters, ub.jacobian",
        )
    output_size(model, batch.shape[1:])
    if isinstance(model, ForeignNetwork):
        model.check_input_derivatives()
    result = backends.get(checked_engine(model, backend)).input_jacobian(model, batch)
    check_finite(result, "the input Jacobian")
    return result


def input_hessian(
    model: Model | Any, x: Any, *, backend: EngineWord | None = None, output: Any = None
) -> Float[np.ndarray, "n outputs *features_features"]:
    """d2 f_a(x_i) / d x_i d x_i, the second derivatives of the outputs with respect to the inputs, exact.

    Where an activation has no second derivative (relu, leakyrelu, elu and selu at preactivation 0), every engine takes
    0, the one from the right. The first derivative there is the one from the left, as in Flux and PyTorch.

    Args:
        model: the network, with one vector of O outputs per sample.
        x: samples (n, *D), of the model's dtype.
        backend, output: as for `outputs`.

    Returns:
        (n, O, *D, *D), of the model's dtype: n O D^2 numbers for samples of D entries.

    Raises:
        As `outputs`; LayerError for a layer that an engine cannot differentiate twice, and for tokens; ConversionError
        and NumericalError as `input_jacobian`.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 1)])
        >>> ub.input_hessian(model, np.eye(2, dtype="float32")).shape
        (2, 1, 2, 2)
    """
    model = as_network(model, output=output)
    batch = checked_samples(model, x)
    if model.takes_tokens:
        raise LayerError(
            "the input derivatives of a model that begins with an Embedding",
            allowed="models whose inputs are numbers",
            remedy="leave out the Embedding, and give its outputs as samples",
        )
    output_size(model, batch.shape[1:])
    if isinstance(model, ForeignNetwork):
        model.check_input_derivatives()
    name = checked_engine(model, backend)
    check_curvature(model, name)
    result = backends.get(name).input_hessian(model, batch)
    result = result.reshape(*result.shape[:2], *batch.shape[1:], *batch.shape[1:])
    check_finite(result, "the input Hessian")
    return result
