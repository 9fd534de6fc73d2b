"""Embedding, positions and attention by hand, for samples (tokens, features)."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.backends.reference.dense import softmax_backward, softmax_forward
from udlbridge.backends.reference.sites import Affine, Elementwise, Lookup, Site
from udlbridge.networks.layers import Embedding, LearnedPositions, SelfAttention, SinusoidalPositions, Softmax, Take

Arrays = dict[str, np.ndarray]


def embedding_forward(layer: Embedding, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_t = W[x_t]. Saves the tokens."""
    return arrays["weight"][x], x


def embedding_backward(layer: Embedding, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """A row for every token; tokens have no derivative."""
    return np.zeros(saved.shape, dy.dtype), [Lookup("weight", saved, dy, layer.num_embeddings)]


def sinusoidal_table(tokens: int, features: int) -> np.ndarray:
    """table[t, 2i] = sin(t / 10000^(2i/E)), table[t, 2i+1] = cos of the same. Vaswani et al. (2017), section 3.5."""
    even = np.arange(0, features, 2)
    angles = np.arange(tokens)[:, None] / 10000.0 ** (even / features)
    table = np.empty((tokens, features))
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)[:, : features // 2]
    return table


def sinusoidal_forward(layer: SinusoidalPositions, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y = x + table."""
    return x + sinusoidal_table(*x.shape[1:]).astype(x.dtype), None


def learned_forward(layer: LearnedPositions, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """y_t = x_t + W[t]."""
    return x + arrays["weight"][: x.shape[1]], None


def learned_backward(
    layer: LearnedPositions, arrays: Arrays, saved: Any, dy: np.ndarray
) -> tuple[np.ndarray, list[Site]]:
    """dW[t] = dy_t, and zero for the positions that the sequence does not reach."""
    missing = layer.length - dy.shape[1]
    return dy, [Elementwise("weight", np.pad(dy, [(0, 0), (0, missing), (0, 0)]))]


def take_forward(layer: Take, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """One row of each sample. Saves the shape."""
    return x[:, layer.index], x.shape


def take_backward(layer: Take, arrays: Arrays, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, list[Site]]:
    """Only that row has a derivative."""
    dx = np.zeros(saved, dy.dtype)
    dx[:, layer.index] = dy
    return dx, []


def attention_forward(layer: SelfAttention, arrays: Arrays, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """softmax(q k' / sqrt(E/H)) v in every head. Saves x, q, k, v, the attention p and the joined heads."""
    n, tokens, features = x.shape
    heads = layer.num_heads
    z = x @ arrays["in_proj_weight"].T
    if layer.bias:
        z = z + arrays["in_proj_bias"]
    # (n, T, 3E) -> three of (n, H, T, E/H)
    q, k, v = z.reshape(n, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(2, 3) / float(np.sqrt(features / heads))
    if layer.causal:
        later = np.triu(np.ones((tokens, tokens), dtype=bool), k=1)
        scores = np.where(later, -np.inf, scores).astype(x.dtype)
    p, _ = softmax_forward(Softmax(), {}, scores)
    joined = (p @ v).transpose(0, 2, 1, 3).reshape(n, tokens, features)
    y = joined @ arrays["out_proj.weight"].T
    if layer.bias:
        y = y + arrays["out_proj.bias"]
    return y, (x, q, k, v, p, joined)


def attention_backward(
    layer: SelfAttention, arrays: Arrays, saved: Any, dy: np.ndarray
) -> tuple[np.ndarray, list[Site]]:
    """Back through the output projection, the weighted sum, the softmax, the scores and the input projection."""
    x, q, k, v, p, joined = saved
    n, tokens, features = x.shape
    heads = layer.num_heads
    width = float(np.sqrt(features / heads))
    dheads = (dy @ arrays["out_proj.weight"]).reshape(n, tokens, heads, -1).transpose(0, 2, 1, 3)
    dscores, _ = softmax_backward(Softmax(), {}, p, dheads @ v.swapaxes(2, 3))
    dq, dk, dv = dscores @ k / width, dscores.swapaxes(2, 3) @ q / width, p.swapaxes(2, 3) @ dheads
    dz = np.stack([dq, dk, dv]).transpose(1, 3, 0, 2, 4).reshape(n, tokens, 3 * features)
    names = ("in_proj_bias", "out_proj.bias") if layer.bias else (None, None)
    return dz @ arrays["in_proj_weight"], [
        Affine("in_proj_weight", names[0], x[:, None], dz[:, None], arrays["in_proj_weight"].shape),
        Affine("out_proj.weight", names[1], joined[:, None], dy[:, None], arrays["out_proj.weight"].shape),
    ]
