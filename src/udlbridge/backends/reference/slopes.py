"""Parameter gradients of a network's derivatives along given directions of its input, by hand.

A tangent goes forward beside the values: it is the derivative of every unit along the direction. Then both are pulled
back. The slope of a unit depends on the parameters through its tangent and, where an activation bends, through its
value: from dt and dv, the derivatives with respect to tangent and value after an activation, come f' dt and f' dv + f''
t dt before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from udlbridge.backends.reference.activations import ACTIVATIONS
from udlbridge.backends.reference.curvature import SECOND_DERIVATIVES
from udlbridge.errors import LayerError
from udlbridge.networks.layers import Activation, Dense, Dropout, Flatten, Layer
from udlbridge.networks.model import Model


def slope_gradient(model: Model, x: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient, with respect to every parameter, of sum_iad c[i, a, d] d f_a(x_i) / d x_id, for c (n, O, *D).

    Raises:
        LayerError: a layer without a rule here.
    """
    _check(model.layers)
    grads = {name: np.zeros_like(value) for name, value in model.params.items()}
    for a in range(c.shape[1]):
        saved: list[Any] = []
        v, t = x, c[:, a]
        for index, layer in enumerate(model.layers):
            v, t, needed = _forward(layer, model.layer_params(index), v, t)
            saved.append(needed)
        dv, dt = np.zeros_like(v), np.zeros_like(t)
        dt[:, a] = 1
        for index in reversed(range(len(model.layers))):
            dv, dt = _backward(model.layers[index], model, index, saved[index], dv, dt, grads)
    return grads


def _check(layers: Sequence[Layer]) -> None:
    known = (Dense, Activation, Flatten, Dropout)
    for index, layer in enumerate(layers):
        if not isinstance(layer, known):
            raise LayerError(
                f"the reference engine cannot fit slopes through layer {index}, {layer.kind}",
                allowed=", ".join(cls.kind for cls in known),
                remedy='use backend="torch" or backend="julia"',
            )


def _forward(layer: Layer, params: Any, v: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """Value and tangent after a layer, and what the way back needs."""
    if isinstance(layer, Flatten):
        return v.reshape(len(v), -1), t.reshape(len(t), -1), v.shape
    z, tz = v, t
    if isinstance(layer, Dense):
        z = v @ params["weight"].T + params.get("bias", 0)
        tz = t @ params["weight"].T
    function, slope = ACTIVATIONS[getattr(layer, "activation", "identity")]
    return function(z), slope(z) * tz, (v, t, z, tz)


def _backward(
    layer: Layer, model: Model, index: int, saved: Any, dv: np.ndarray, dt: np.ndarray, grads: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives with respect to value and tangent before the layer; parameter gradients are added to `grads`."""
    if isinstance(layer, Flatten):
        return dv.reshape(saved), dt.reshape(saved)
    v, t, z, tz = saved
    name = getattr(layer, "activation", "identity")
    first, second = ACTIVATIONS[name][1](z), SECOND_DERIVATIVES[name](z)
    dz, dtz = first * dv + second * tz * dt, first * dt
    if not isinstance(layer, Dense):
        return dz, dtz
    weight = model.layer_params(index)["weight"]
    flat_dz, flat_v, flat_dtz, flat_t = (a.reshape(-1, a.shape[-1]) for a in (dz, v, dtz, t))
    grads[f"{index}.weight"] += flat_dz.T @ flat_v + flat_dtz.T @ flat_t
    if layer.bias:
        grads[f"{index}.bias"] += flat_dz.sum(axis=0)
    return dz @ weight, dtz @ weight
