"""Translations of activations, and of dropout, which is one of them in inference mode: the identity."""

from __future__ import annotations

from typing import Any

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation, unary


def elu(c: Call) -> Value:
    """alpha (exp(input_scale x) - 1) below 0.

    Raises:
        Unfit: it has a scale.
    """
    if c["scale"] != 1:
        raise Unfit("its scale is not 1")
    return c.add("elu", c["self"], alpha=c["alpha"], scale=1.0 / c["input_scale"])


def threshold(c: Call) -> Value:
    """x above it, else a value."""
    above = c.add("compare", c["self"], c["threshold"], relation="greater")
    return c.add("where", above, c["self"], c["value"])


def prelu(c: Call) -> Value:
    """Slopes along the channels."""
    weight, ndim = c["weight"], c.ndim(c["self"])
    count = c.size(weight, 0) if c.ndim(weight) else 1
    if c.ndim(weight) == 1:
        weight = c.reshape(weight, (1,) if count == 1 else (count, *(1,) * (ndim - 2)))
    return c.add("prelu", c["self"], weight)


def gelu(c: Call) -> Value:
    """In either form."""
    return c.add("gelu", c["self"], form="erf" if c["approximate"] == "none" else "tanh")


def dropout(c: Call) -> Any:
    """Nothing, in inference mode.

    Raises:
        Unfit: it is in training mode.
    """
    if c["train"] and c["p"] > 0:
        raise Unfit("it draws random numbers, also in inference mode: give it training=self.training")
    return c["input"]


def hard_shrunk(c: Call) -> Value:
    """0 where |x| <= lambd."""
    x = c["self"]
    inside = c.add("compare", c.add("absolute", x), c["lambd"], relation="less_equal")
    return c.add("where", inside, 0.0, x)


def soft_shrunk(c: Call) -> Value:
    """x - clamp(x, -lambd, lambd)."""
    x, bound = c["self"], float(c["lambd"])
    return c.add("subtract", x, c.add("clamp", x, low=-bound, high=bound))


def random_slope(c: Call) -> Value:
    """In inference, the mean of the two slopes.

    Raises:
        Unfit: it is in training mode.
    """
    if c["training"]:
        raise Unfit("it draws random numbers")
    return c.add("leaky_relu", c["self"], slope=(c["lower"] + c["upper"]) / 2)


UNARY = {
    "relu": "relu", "selu": "selu", "sigmoid": "sigmoid", "log_sigmoid": "logsigmoid", "tanh": "tanh", "silu": "silu",
    "mish": "mish", "hardsigmoid": "hardsigmoid", "hardswish": "hardswish",
}  # fmt: skip
"""Names of the same activations in torch and in graphs."""

TRANSLATIONS: dict[str, Translation] = {
    **{name: unary(op) for name, op in UNARY.items()},
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), dropout),
    "hardshrink": hard_shrunk,
    "softshrink": soft_shrunk,
    "rrelu": random_slope,
    "relu6": lambda c: c.add("hardtanh", c["self"], low=0.0, high=6.0),
    "hardtanh": lambda c: c.add("hardtanh", c["self"], low=c["min_val"], high=c["max_val"]),
    "leaky_relu": lambda c: c.add("leaky_relu", c["self"], slope=c["negative_slope"]),
    "elu": elu,
    "celu": lambda c: c.add("elu", c["self"], alpha=c["alpha"], scale=c["alpha"]),
    "gelu": gelu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "threshold": threshold,
    "softplus": lambda c: c.add("softplus", c["self"], beta=float(c["beta"]), threshold=float(c["threshold"])),
}
"""By the name of torch's operation."""
