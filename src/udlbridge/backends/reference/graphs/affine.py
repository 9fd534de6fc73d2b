"""Affine maps on the last axis, products of matrices, sums by an equation, and rows of tables."""

from __future__ import annotations

import numpy as np

from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule, unbroadcast


def linear(a: Attributes, n: int, xs: Arrays) -> np.ndarray:
    """Y = x W' + b."""
    y = xs[0] @ xs[1].T
    return y + xs[2] if len(xs) > 2 else y


def linear_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Dx = dy W, dW = sum of dy x' over all rows, db = sum of dy."""
    rows, inputs = dy.reshape(-1, dy.shape[-1]), xs[0].reshape(-1, xs[0].shape[-1])
    return [dy @ xs[1], rows.T @ inputs, rows.sum(axis=0)][: len(xs)]


def linear_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """Dx W' + x dW' + db."""
    dy = dxs[0] @ xs[1].T + xs[0] @ dxs[1].T
    return dy + dxs[2] if len(xs) > 2 else dy


def matmul_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Da = dy b', db = a' dy."""
    left, right = xs
    return [
        unbroadcast(dy @ np.swapaxes(right, -1, -2), left.shape),
        unbroadcast(np.swapaxes(left, -1, -2) @ dy, right.shape),
    ]


def einsum_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """The result takes the place of the operand; a letter of one operand alone was summed, so all its places get it."""
    terms, output = a["equation"].split("->")
    first, second = terms.split(",")
    found = []
    for own, other, x, partner in ((first, second, *xs), (second, first, *reversed(xs))):
        known = "".join(letter for letter in own if letter in output or letter in other)
        d = np.einsum(f"{output},{other}->{known}", dy, partner)
        alone = [axis for axis, letter in enumerate(own) if letter not in known]
        found.append(np.broadcast_to(np.expand_dims(d, alone), x.shape))
    return found


def embedding_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray | None]:
    """Row v gets the sum of dy where token v stands; the row of the padding gets nothing."""
    table, tokens = xs
    d = np.zeros_like(table)
    np.add.at(d, tokens, dy)
    if a["padding"] >= 0:
        d[a["padding"]] = 0
    return [d, None]


def embedding_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """Rows of the table's tangent."""
    moved = dxs[0].copy()
    if a["padding"] >= 0:
        moved[a["padding"]] = 0
    return np.asarray(moved[xs[1]])


RULES: dict[str, Rule] = {
    "linear": Rule(linear, linear_backward, linear_tangent),
    "matmul": Rule(
        lambda a, n, xs: xs[0] @ xs[1],
        matmul_backward,
        lambda a, xs, y, dxs: dxs[0] @ xs[1] + xs[0] @ dxs[1],
    ),
    "einsum": Rule(
        lambda a, n, xs: np.einsum(a["equation"], *xs),
        einsum_backward,
        lambda a, xs, y, dxs: np.einsum(a["equation"], dxs[0], xs[1]) + np.einsum(a["equation"], xs[0], dxs[1]),
    ),
    "embedding": Rule(lambda a, n, xs: np.asarray(xs[0][xs[1]]), embedding_backward, embedding_tangent),
}
"""By operation."""
