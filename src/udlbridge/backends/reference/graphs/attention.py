"""Scaled dot-product attention: P = softmax(scale Q K' + mask), y = P V."""

from __future__ import annotations

import numpy as np

from udlbridge.backends.reference.graphs.reductions import softmax
from udlbridge.backends.reference.graphs.rule import Arrays, Attributes, Rule, unbroadcast


def turned(x: np.ndarray) -> np.ndarray:
    """The last two axes exchanged."""
    return np.swapaxes(x, -1, -2)


def weights(a: Attributes, xs: Arrays) -> np.ndarray:
    """P, (..., queries, keys)."""
    scores = a["scale"] * (xs[0] @ turned(xs[1]))
    if a["causal"]:
        scores = np.where(np.tri(*scores.shape[-2:]).astype(bool), scores, -np.inf)
    if len(xs) > 3:
        scores = np.where(xs[3], scores, -np.inf) if xs[3].dtype == bool else scores + xs[3]
    return softmax(scores, -1)


def attention_backward(a: Attributes, xs: Arrays, y: np.ndarray, dy: np.ndarray) -> list[np.ndarray | None]:
    """DV = P' dy; dS = P (dP - sum of P dP); dQ = scale dS K; dK = scale dS' Q; a mask of numbers gets dS."""
    query, key, value = xs[:3]
    p = weights(a, xs)
    dp = dy @ turned(value)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    found: list[np.ndarray | None] = [
        unbroadcast(a["scale"] * (ds @ key), query.shape),
        unbroadcast(a["scale"] * (turned(ds) @ query), key.shape),
        unbroadcast(turned(p) @ dy, value.shape),
    ]
    if len(xs) > 3:
        found.append(None if xs[3].dtype == bool else unbroadcast(ds, xs[3].shape))
    return found


def attention_tangent(a: Attributes, xs: Arrays, y: np.ndarray, dxs: Arrays) -> np.ndarray:
    """The product rule, and the softmax's slope."""
    query, key, value = xs[:3]
    p = weights(a, xs)
    ds = a["scale"] * (dxs[0] @ turned(key) + query @ turned(dxs[1]))
    if len(xs) > 3 and xs[3].dtype != bool:
        ds = ds + dxs[3]
    dp = p * (ds - (p * ds).sum(axis=-1, keepdims=True))
    return np.asarray(dp @ value + p @ dxs[2])


RULES: dict[str, Rule] = {
    "attention": Rule(lambda a, n, xs: weights(a, xs) @ xs[2], attention_backward, attention_tangent),
}
"""By operation."""
