"""A random graph of one operation, for every operation: shapes, axes and settings are drawn from a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import udlbridge as ub
from udlbridge.networks.graphs.operations import OPERATIONS
from udlbridge.networks.graphs.values import PerSample

Generator = np.random.Generator
Case = tuple[dict[str, Any], list[Any], tuple[int, ...]]
"""Attributes; inputs after the samples, as shapes of parameters or as buffers; and the shape of a sample."""


def _shape(r: Generator, low: int = 1, high: int = 3) -> tuple[int, ...]:
    return tuple(int(size) for size in r.integers(1, 5, size=r.integers(low, high + 1)))


def _choice(r: Generator, *values: Any) -> Any:
    return values[r.integers(len(values))]


def _axes(r: Generator, ndim: int) -> tuple[int, ...]:
    """Some axes after that of the samples, in any order."""
    return tuple(int(axis) for axis in 1 + r.permutation(ndim - 1)[: r.integers(1, ndim)])


def _unary(**settings: Callable[[Generator], Any]) -> Callable[[Generator], Case]:
    return lambda r: ({name: draw(r) for name, draw in settings.items()}, [], _shape(r))


def _binary(r: Generator) -> Case:
    shape = _shape(r)
    other = tuple(int(_choice(r, size, 1)) for size in shape[r.integers(len(shape)) :])
    return {}, [other], shape


def _reduction(r: Generator, **more: Any) -> Case:
    shape = _shape(r)
    return {"axes": _axes(r, len(shape) + 1), "keep": bool(r.integers(2)), **more}, [], shape


def _window(r: Generator, dims: int) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    """Settings of windows, a kernel, and a space that is large enough for it."""
    kernel = r.integers(1, 4, size=dims)
    stride, dilation = r.integers(1, 4, size=dims), r.integers(1, 3, size=dims)
    padding = np.array([r.integers(0, k // 2 + 1) for k in kernel])
    space = dilation * (kernel - 1) + 1 + r.integers(0, 4, size=dims)
    lists = {"stride": stride, "padding": padding, "dilation": dilation}
    return (
        {name: tuple(map(int, value)) for name, value in lists.items()},
        tuple(kernel.tolist()),
        tuple(space.tolist()),
    )


def _conv(r: Generator) -> Case:
    settings, kernel, space = _window(r, int(r.integers(1, 4)))
    groups, inputs, outputs = (int(size) for size in r.integers(1, 3, size=3))
    weight = (groups * outputs, inputs, *kernel)
    bias = [(groups * outputs,)] if r.integers(2) else []
    return {**settings, "groups": groups}, [weight, *bias], (groups * inputs, *space)


def _conv_transpose(r: Generator) -> Case:
    settings, kernel, space = _window(r, int(r.integers(1, 4)))
    groups, inputs, outputs = (int(size) for size in r.integers(1, 3, size=3))
    extra = tuple(int(r.integers(0, max(s, d))) for s, d in zip(settings["stride"], settings["dilation"], strict=True))
    weight = (groups * inputs, outputs, *kernel)
    bias = [(groups * outputs,)] if r.integers(2) else []
    return {**settings, "output_padding": extra, "groups": groups}, [weight, *bias], (groups * inputs, *space)


def _pool(r: Generator, maximum: bool) -> Case:
    settings, kernel, space = _window(r, int(r.integers(1, 4)))
    settings |= {"kernel": kernel, "ceil_mode": bool(r.integers(2))}
    if not maximum:
        del settings["dilation"]
        settings["count_padding"] = bool(r.integers(2))
    return settings, [], (int(r.integers(1, 3)), *space)


def _einsum(r: Generator) -> Case:
    equation, sizes = _choice(r, ("nij,jk->nik", "jk"), ("nij,nik->njk", ""), ("nij,k->ni", "k"), ("nij,jl->nl", "jl"))
    extents = dict(zip("ijkl", (2, 3, 4, 2), strict=True))
    if not sizes:
        return {"equation": "nij,nik->njk"}, ["x"], (2, 3)
    return {"equation": equation}, [tuple(extents[letter] for letter in sizes)], (2, 3)


def _attention(r: Generator) -> Case:
    tokens, width, mask = int(r.integers(2, 5)), int(r.integers(1, 4)), int(r.integers(3))
    more: list[Any] = [(tokens, width), (tokens, 3)]
    if mask == 1:
        more.append((tokens, tokens))
    if mask == 2:
        more.append(np.eye(tokens, dtype=bool) | (r.random((tokens, tokens)) < 0.5))
    return {"causal": mask == 0 and bool(r.integers(2)), "scale": float(r.uniform(0.2, 1.5))}, more, (2, tokens, width)


def _norm(r: Generator, op: str) -> Case:
    shape = (2 * int(r.integers(1, 3)), *(int(size) for size in r.integers(2, 4, size=r.integers(1, 3))))
    settings: dict[str, Any] = {"epsilon": float(r.uniform(1e-5, 0.5))}
    own = (shape[0],)
    if op in ("layer_norm", "rms_norm"):
        settings["axes"] = int(r.integers(1, len(shape) + 1))
        own = shape[len(shape) - settings["axes"] :]
    if op == "group_norm":
        settings["groups"] = int(_choice(r, 1, 2, shape[0]))
    if op == "batch_norm":
        return settings, [r.normal(size=own), r.uniform(0.5, 2, size=own), *[own] * int(r.integers(3))], shape
    return settings, [own] * int(r.integers(0, 2 if op == "rms_norm" else 3)), shape


def _slice(r: Generator) -> Case:
    shape = _shape(r)
    axis = int(r.integers(len(shape)))
    start = int(r.integers(shape[axis]))
    stop = int(r.integers(start + 1, shape[axis] + 1))
    return {"axis": axis + 1, "start": start, "stop": stop, "step": int(r.integers(1, 4))}, [], shape


def _pad(r: Generator) -> Case:
    shape = tuple(int(size) for size in r.integers(3, 6, size=r.integers(1, 4)))
    pads = ((0, 0), *((int(a), int(b)) for a, b in r.integers(0, 3, size=(len(shape), 2))))
    mode = _choice(r, "constant", "reflect", "replicate", "circular")
    return {"pads": pads, "mode": mode, "value": float(r.normal())}, [], shape


def _take(r: Generator) -> Case:
    shape = _shape(r)
    axis = int(r.integers(len(shape)))
    return {"axis": axis + 1}, [r.integers(0, shape[axis], size=4)], shape


def _reshape(r: Generator) -> Case:
    shape = _shape(r)
    return {"shape": (PerSample(), int(np.prod(shape)))}, [], shape


def _uniform(low: float, high: float) -> Callable[[Generator], float]:
    return lambda r: float(r.uniform(low, high))


CASES: dict[str, Callable[[Generator], Case]] = {
    "linear": lambda r: ({}, [(3, 4), (3,)][: r.integers(1, 3)], (*_shape(r, 1, 2), 4)),
    "matmul": lambda r: ({}, [(*[1] * int(r.integers(2)), 4, 2)], (*_shape(r, 1, 2), 4)),
    "einsum": _einsum,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "attention": _attention,
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), _binary),
    **{
        op: _unary()
        for op in [
            "negative",
            "absolute",
            "exp",
            "log",
            "sqrt",
            "rsqrt",
            "sin",
            "cos",
            "erf",
            "relu",
            "selu",
            "sigmoid",
            "logsigmoid",
            "tanh",
            "silu",
            "mish",
            "softsign",
            "hardsigmoid",
            "hardswish",
            "stop_gradient",
        ]
    },
    "power": _unary(exponent=lambda r: _choice(r, -1.5, -1.0, 0.5, 2.0, 3.0)),
    "clamp": _unary(low=_uniform(-1, 0), high=_uniform(0, 1)),
    "hardtanh": _unary(low=_uniform(-1, 0), high=_uniform(0, 1)),
    "leaky_relu": _unary(slope=_uniform(0, 1)),
    "elu": _unary(alpha=_uniform(0.5, 2), scale=_uniform(0.5, 2)),
    "gelu": _unary(form=lambda r: _choice(r, "erf", "tanh")),
    "softplus": _unary(beta=_uniform(0.5, 3), threshold=lambda r: _choice(r, 1.0, 20.0)),
    "prelu": lambda r: ({}, [(3, 1)], (3, 4)),
    "where": lambda r: ({}, [(4,)], (3, 4)),
    **dict.fromkeys(("sum", "mean", "logsumexp"), _reduction),
    "max": lambda r: _reduction(r, ties=_choice(r, "first", "share")),
    "min": lambda r: _reduction(r, ties=_choice(r, "first", "share")),
    "variance": lambda r: ({"axes": (1, 2), "keep": bool(r.integers(2)), "correction": int(r.integers(2))}, [], (2, 3)),
    "softmax": lambda r: ({"axis": int(r.integers(1, 3))}, [], (3, 4)),
    "log_softmax": lambda r: ({"axis": int(r.integers(1, 3))}, [], (3, 4)),
    **{op: lambda r, op=op: _norm(r, op) for op in ("layer_norm", "rms_norm", "group_norm", "batch_norm")},  # type: ignore[misc]
    "max_pool": lambda r: _pool(r, maximum=True),
    "mean_pool": lambda r: _pool(r, maximum=False),
    "reshape": _reshape,
    "expand": lambda r: ({"shape": (PerSample(), 2, 3)}, [], (int(_choice(r, 1, 2)), int(_choice(r, 1, 3)))),
    "permute": lambda r: ({"axes": (0, *(int(axis) for axis in 1 + r.permutation(3)))}, [], _shape(r, 3, 3)),
    "slice": _slice,
    "take": _take,
    "concatenate": lambda r: ({"axis": 2}, ["x"] * int(r.integers(0, 3)), (2, 3)),
    "pad": _pad,
}
"""Operations on numbers; those on tokens and truth values have tests of their own."""

ELSEWHERE = {"embedding", "fill", "compare", "logical", "cast", "whole"}

POSITIVE = {"log", "sqrt", "rsqrt", "power"}
"""Operations that take positive numbers alone."""

assert set(CASES) | ELSEWHERE == set(OPERATIONS)


def one_operation(op: str, generator: Generator) -> tuple[ub.Graph, np.ndarray]:
    """The graph x -> op(scale x, ...), with a parameter before the operation too, and samples for it."""
    attributes, more, sample = CASES[op](generator)
    params = {"before": np.asarray(generator.uniform(0.5, 1.5, size=sample))}
    buffers: dict[str, np.ndarray] = {}
    inputs = ["scaled"]
    for index, one in enumerate(more):
        if isinstance(one, str):
            inputs.append(one)
        elif isinstance(one, tuple):
            inputs.append(f"own.{index}")
            params[inputs[-1]] = generator.normal(size=one)
        else:
            inputs.append(f"given.{index}")
            buffers[inputs[-1]] = one
    nodes = [ub.Node("scaled", "multiply", ("x", "before"))]
    if op == "where":
        nodes.append(ub.Node("condition", "compare", ("scaled", "own.0"), {"relation": "greater"}))
        inputs.insert(0, "condition")
    x = generator.normal(size=(3, *sample))
    x = np.abs(x) + 0.1 if op in POSITIVE else x
    graph = ub.Graph(
        [*nodes, ub.Node("y", op, tuple(inputs), attributes)], "y", params=params, buffers=buffers, sample_shape=sample
    )
    return graph, x
