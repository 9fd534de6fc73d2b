"""The table of operations: what a graph may consist of. Each engine has its own implementation of every one.

Where parameters stand among the inputs they are values like any others, so one may go into several operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from udlbridge.networks.graphs import movement_shapes, shapes, window_shapes
from udlbridge.networks.graphs.attributes import (
    AXES,
    AXIS,
    COUNTS,
    EQUATION,
    EXTENTS,
    FLAG,
    PAIRS,
    REAL,
    SIZE,
    SIZES,
    WHOLE,
    Attribute,
    choice,
)

MANY = 10_000
"""The most inputs that an operation of any number may have."""


@dataclass(frozen=True)
class Operation:
    """An operation: the fewest and the most inputs, its attributes, its rule of shapes, and its meaning in words.

    `moves`: whether it only puts the numbers of its first input, or of all, elsewhere, whatever their kind.
    """

    inputs: tuple[int, int]
    rule: shapes.Rule
    meaning: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    moves: bool = False


def _unary(meaning: str, **attributes: Attribute) -> Operation:
    return Operation((1, 1), shapes.same, meaning, attributes)


def _binary(meaning: str) -> Operation:
    return Operation((2, 2), shapes.elementwise, meaning)


def _reduction(meaning: str, **attributes: Attribute) -> Operation:
    return Operation((1, 1), shapes.reduction, meaning, {"axes": AXES, "keep": FLAG, **attributes})


_WINDOW = {"stride": SIZES, "padding": COUNTS, "dilation": SIZES}
_TIES = choice("first", "share")

OPERATIONS: dict[str, Operation] = {
    # Affine maps and products.
    "linear": Operation((2, 3), shapes.linear, "x W' + b on the last axis; W (out, in), b (out)"),
    "matmul": Operation((2, 2), shapes.matmul, "matrix products of the last two axes, the others broadcast"),
    "einsum": Operation((2, 2), shapes.einsum, "the sum that the equation says", {"equation": EQUATION}),
    "conv": Operation(
        (2, 3),
        window_shapes.conv,
        "cross-correlation over 1 to 3 axes; W (out, in/groups, *kernel), b (out); zeros at both ends",
        {**_WINDOW, "groups": SIZE},
    ),
    "conv_transpose": Operation(
        (2, 3),
        window_shapes.conv_transpose,
        "the transpose of a cross-correlation by its input; W (in, out/groups, *kernel), b (out)",
        {**_WINDOW, "output_padding": COUNTS, "groups": SIZE},
    ),
    "embedding": Operation(
        (2, 2),
        shapes.embedding,
        "rows of a table (rows, q) by whole numbers; the row `padding` gets no gradient; -1: no such row",
        {"padding": WHOLE},
    ),
    "attention": Operation(
        (3, 4),
        shapes.attention,
        "softmax(scale Q K' + mask) V; a mask of truth values says where to look, `causal` not to look ahead",
        {"causal": FLAG, "scale": REAL},
    ),
    # Arithmetic, broadcast as in NumPy.
    "add": _binary("a + b"),
    "subtract": _binary("a - b"),
    "multiply": _binary("a b"),
    "divide": _binary("a / b"),
    "maximum": _binary("max(a, b), slopes shared where they are equal"),
    "minimum": _binary("min(a, b), slopes shared where they are equal"),
    "power": _unary("x^exponent", exponent=REAL),
    "negative": _unary("-x"),
    "absolute": _unary("|x|, with slope 0 at 0"),
    "exp": _unary("e^x"),
    "log": _unary("log x"),
    "sqrt": _unary("the square root"),
    "rsqrt": _unary("1 / sqrt x"),
    "sin": _unary("sin x"),
    "cos": _unary("cos x"),
    "erf": _unary("2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x"),
    "clamp": _unary("min(max(x, low), high), with slope 1 at the bounds", low=REAL, high=REAL),
    "fill": Operation((0, 0), shapes.filled, "one number everywhere", {"shape": EXTENTS, "value": REAL}),
    "compare": Operation(
        (2, 2),
        shapes.compared,
        "truth values of a relation",
        {"relation": choice("less", "less_equal", "equal", "not_equal", "greater", "greater_equal")},
    ),
    "logical": Operation((1, 2), shapes.truth, "of truth values", {"function": choice("not", "and", "or")}),
    "where": Operation((3, 3), shapes.where, "a where the condition holds, else b"),
    "cast": Operation((1, 1), shapes.cast, "truth values or whole numbers as numbers"),
    "whole": Operation((1, 1), shapes.whole, "the nearest whole number, of two the even one, with derivative 0"),
    "stop_gradient": Operation((1, 1), shapes.untouched, "x, with derivative 0", moves=True),
    # Activations.
    "relu": _unary("max(x, 0), with slope 0 at 0"),
    "leaky_relu": _unary("x where x > 0, else slope x", slope=REAL),
    "prelu": Operation((2, 2), shapes.prelu, "x where x > 0, else w x; w broadcasts to x"),
    "elu": _unary("x where x > 0, else alpha (e^(x/scale) - 1), as celu with scale = alpha", alpha=REAL, scale=REAL),
    "selu": _unary("1.0507 (x where x > 0, else 1.67326 (e^x - 1))"),
    "gelu": _unary("x Phi(x), or its form with tanh", form=choice("erf", "tanh")),
    "sigmoid": _unary("1 / (1 + e^-x)"),
    "logsigmoid": _unary("log sigmoid(x)"),
    "tanh": _unary("tanh x"),
    "silu": _unary("x sigmoid(x)"),
    "mish": _unary("x tanh(softplus(x))"),
    "softplus": _unary("log(1 + e^(beta x)) / beta; x where beta x > threshold", beta=REAL, threshold=REAL),
    "softsign": _unary("x / (1 + |x|)"),
    "hardtanh": _unary("max(low, min(x, high)), with slope 0 at the bounds", low=REAL, high=REAL),
    "hardsigmoid": _unary("max(0, min(x + 3, 6)) / 6, with slope 0 at the bounds"),
    "hardswish": _unary("x max(0, min(x + 3, 6)) / 6, with the slope from inside at -3 and 3"),
    # Reductions over axes.
    "sum": _reduction("the sum"),
    "mean": _reduction("the mean"),
    "max": _reduction("the largest; the slope goes to the first of several, or is shared", ties=_TIES),
    "min": _reduction("the smallest; the slope goes to the first of several, or is shared", ties=_TIES),
    "logsumexp": _reduction("log of the sum of e^x"),
    "variance": Operation(
        (1, 1),
        shapes.variance,
        "squared distances from the mean, summed and divided by their number minus the correction",
        {"axes": AXES, "keep": FLAG, "correction": WHOLE},
    ),
    "softmax": Operation((1, 1), shapes.along, "e^x over its sum along an axis", {"axis": AXIS}),
    "log_softmax": Operation((1, 1), shapes.along, "log of the softmax along an axis", {"axis": AXIS}),
    # Norms; the inputs after the first are scale and shift.
    "layer_norm": Operation(
        (1, 3),
        shapes.last_axes,
        "(x - mean) / sqrt(var + epsilon) over the last `axes`",
        {"axes": SIZE, "epsilon": REAL},
    ),
    "rms_norm": Operation(
        (1, 2),
        shapes.last_axes,
        "x / sqrt(mean of x^2 + epsilon) over the last `axes`",
        {"axes": SIZE, "epsilon": REAL},
    ),
    "group_norm": Operation(
        (1, 3),
        shapes.channels,
        "(x - mean) / sqrt(var + epsilon) over each group of channels and all positions",
        {"groups": SIZE, "epsilon": REAL},
    ),
    "batch_norm": Operation(
        (3, 5),
        shapes.channels,
        "(x - mean) / sqrt(var + epsilon) for each channel, with the mean and variance that follow x among the inputs",
        {"epsilon": REAL},
    ),
    # Pools.
    "max_pool": Operation(
        (1, 1),
        window_shapes.pool,
        "the largest of each window; the slope goes to the first of several",
        {"kernel": SIZES, **_WINDOW, "ceil_mode": FLAG},
    ),
    "mean_pool": Operation(
        (1, 1),
        window_shapes.pool,
        "the mean of each window; `count_padding` says whether the padding counts",
        {"kernel": SIZES, "stride": SIZES, "padding": COUNTS, "ceil_mode": FLAG, "count_padding": FLAG},
    ),
    # Movement of entries.
    "reshape": Operation(
        (1, 1), movement_shapes.reshape, "the same numbers in C order", {"shape": EXTENTS}, moves=True
    ),
    "expand": Operation((1, 1), movement_shapes.expand, "broadcast to a shape", {"shape": EXTENTS}, moves=True),
    "permute": Operation((1, 1), movement_shapes.permute, "axes in another order", {"axes": AXES}, moves=True),
    "slice": Operation(
        (1, 1),
        movement_shapes.slices,
        "a part of an axis",
        {"axis": AXIS, "start": AXIS, "stop": AXIS, "step": SIZE},
        moves=True,
    ),
    "take": Operation((2, 2), movement_shapes.take, "entries of an axis, by whole numbers", {"axis": AXIS}, moves=True),
    "concatenate": Operation(
        (1, MANY), movement_shapes.concatenate, "one after the other along an axis", {"axis": AXIS}, moves=True
    ),
    "pad": Operation(
        (1, 1),
        movement_shapes.pad,
        "more at both ends of the axes: a value, or what is inside, mirrored, repeated or from the other end",
        {"pads": PAIRS, "mode": choice("constant", "reflect", "replicate", "circular"), "value": REAL},
    ),
}
"""Every operation by its name."""


def table() -> str:
    """The operations as a table in Markdown."""
    lines = ["| operation | inputs | attributes | meaning |", "|---|---|---|---|"]
    for name, operation in OPERATIONS.items():
        least, most = operation.inputs
        count = str(least) if least == most else f"{least} or more" if most == MANY else f"{least} to {most}"
        settings = "; ".join(f"`{key}`: {kind.words}" for key, kind in operation.attributes.items())
        meaning = operation.meaning.replace("|", "\\|")
        lines.append(f"| `{name}` | {count} | {settings} | {meaning} |")
    return "\n".join(lines) + "\n"
