"""Kernels on their way through a network: what every layer makes of the covariances of its inputs.

A `State` holds the NNGP kernel and the NTK of samples against samples: one number for a pair of vectors. Where samples
have space, there is a number for every position ("diagonal": all that Flatten needs), or for every pair of positions
(pools need them), with the two positions of an axis next to each other: (..., H, H', W, W').
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from udlbridge.errors import LayerError
from udlbridge.infinite.duals import DUALS
from udlbridge.infinite.states import Setting, State, States
from udlbridge.networks.layers import (
    Activation,
    Conv1d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalMeanPool,
    Layer,
    LayerNorm,
    MeanPool,
    Residual,
)
from udlbridge.texts import kind_of


def through(layers: Iterable[Layer], states: States, setting: Setting, where: str = "layer ") -> States:
    """The kernels after a chain of layers.

    Raises:
        LayerError: a layer that has no kernel at infinite width; it is named.
    """
    for index, layer in enumerate(layers):
        states = _behind(layer, states, setting, f"{where}{index}")
    return states


def _behind(layer: Layer, states: States, setting: Setting, name: str) -> States:
    if isinstance(layer, Dense | Conv1d | Conv2d):
        states = _each(states, lambda state: _affine(layer, state, setting, name))
        return _activated(layer.activation, states)
    if isinstance(layer, Activation):
        return _activated(layer.activation, states)
    if isinstance(layer, Flatten):
        return _each(states, _flattened)
    if isinstance(layer, GlobalMeanPool):
        return _each(states, _pooled)
    if isinstance(layer, MeanPool):
        return _each(states, lambda state: _windowed(layer, state))
    if isinstance(layer, LayerNorm):
        return _normalised(layer, states, name)
    if isinstance(layer, Residual):
        return _added(layer, states, setting, name)
    if isinstance(layer, Dropout):
        return states
    raise LayerError(
        f"{name} is {kind_of(layer)}, which has no kernel at infinite width here",
        allowed="Dense, Conv1d, Conv2d, activations, Flatten, MeanPool, GlobalMeanPool, LayerNorm, Residual, Dropout",
        remedy="leave it out, or compute the kernel of a finite network, ub.ntk",
    )


def _each(states: States, change: Callable[[State], State]) -> States:
    return replace(states, first=change(states.first), second=change(states.second), across=change(states.across))


def _affine(layer: Dense | Conv1d | Conv2d, state: State, setting: Setting, name: str) -> State:
    """z = W a + b: the kernels averaged over what a neuron sees, times the variance of weights, plus that of biases."""
    shape = layer.output_shape(state.shape)
    if isinstance(layer, Dense):
        if len(state.shape) != 1:
            raise LayerError(
                f"{name} is a Dense on samples of shape {state.shape}",
                allowed="vectors",
                remedy="put a Flatten before it",
            )
        fan_in, seen = layer.in_features, state
    else:
        if layer.groups != 1:
            raise LayerError(f"{name} has groups={layer.groups}", allowed="groups=1", remedy="leave groups out")
        fan_in, seen = layer.patch_size, _patches(layer, state)
    w2, b2 = setting.w_std**2, setting.b_std**2 if layer.bias else 0.0
    nngp = w2 * seen.nngp + b2
    own = fan_in * seen.nngp + float(layer.bias) if setting.standard else nngp
    ntk = own if seen.ntk is None else own + w2 * seen.ntk
    return replace(state, nngp=nngp, ntk=ntk, shape=shape)


def _changed(state: State, change: Callable[[np.ndarray], np.ndarray]) -> State:
    """Both kernels of a state, changed alike."""
    return replace(state, nngp=change(state.nngp), ntk=None if state.ntk is None else change(state.ntk))


def _patches(layer: Conv1d | Conv2d, state: State) -> State:
    """The mean over the kernel's offsets of what windows see there, for every window or every pair of windows."""
    copies = 2 if state.pairs else 1
    offsets = [
        [(offset * d,) * copies for offset in range(k)] for k, d in zip(layer.kernel, layer.dilations, strict=True)
    ]
    windows = layer.output_shape(state.shape)[1:]
    sides = layer.sides
    return _changed(state, lambda k: _cut(k, state.lead, copies, sides, offsets, layer.strides, windows))


def _windowed(layer: MeanPool, state: State) -> State:
    """The mean over two independent offsets, one for each window of a pair."""
    offsets = [list(product(range(k), repeat=2)) for k in layer.kernel]
    shape = layer.output_shape(state.shape)
    sides = layer.sides
    pooled = _changed(state, lambda k: _cut(k, state.lead, 2, sides, offsets, layer.strides, shape[1:]))
    return replace(pooled, shape=shape)


def _cut(
    k: np.ndarray,
    lead: int,
    copies: int,
    sides: Sequence[tuple[int, int]],
    offsets: Sequence[Sequence[tuple[int, ...]]],
    strides: Sequence[int],
    windows: Sequence[int],
) -> np.ndarray:
    """The mean over `offsets`, axis by axis, of the padded kernel at every stride; space has `copies` axes for each."""
    cut = np.pad(k, [(0, 0)] * lead + [side for side in sides for _ in range(copies)])
    for axis, (shifts, stride, count) in enumerate(zip(offsets, strides, windows, strict=True)):
        before = (slice(None),) * (lead + axis * copies)
        parts = [
            cut[(*before, *(slice(start, start + stride * (count - 1) + 1, stride) for start in shift))]
            for shift in shifts
        ]
        cut = sum(parts[1:], parts[0]) / len(parts)
    return cut


def _flattened(state: State) -> State:
    """What a Dense layer after it sees: the mean over positions, each with itself."""
    if not state.space:
        return state
    axes = tuple(range(state.lead, state.lead + len(state.space)))
    flat = _changed(state, lambda k: own_positions(k, state).mean(axis=axes))
    return replace(flat, shape=(prod(state.shape),), pairs=False)


def _pooled(state: State) -> State:
    """The mean over all pairs of positions."""
    axes = tuple(range(state.lead, state.lead + 2 * len(state.space)))
    pooled = _changed(state, lambda k: k.mean(axis=axes, keepdims=True))
    return replace(pooled, shape=(state.shape[0], *(1 for _ in state.space)))


def own_positions(k: np.ndarray, state: State) -> np.ndarray:
    """The kernel of every position with itself, (..., H, W)."""
    if not state.pairs:
        return k
    for axis in range(len(state.space)):
        # The diagonal of two neighbouring axes, put back in their place.
        k = np.moveaxis(np.diagonal(k, axis1=state.lead + axis, axis2=state.lead + axis + 1), -1, state.lead + axis)
    return k


def _variances(state: State, states: States) -> tuple[np.ndarray, np.ndarray]:
    """The variances that belong to both sides of every entry of a kernel, of shapes that broadcast against it."""

    def spread(own: State, samples: tuple[slice | None, ...], side: int) -> np.ndarray:
        v = own_positions(own.nngp, own)[samples]
        if not state.pairs:
            return v
        for axis in range(len(state.space)):
            v = np.expand_dims(v, state.lead + 2 * axis + (1 - side))
        return v

    everything = slice(None)
    if state.lead == 1:
        return spread(state, (everything,), 0), spread(state, (everything,), 1)
    return spread(states.first, (everything, None), 0), spread(states.second, (None, everything), 1)


def _activated(name: str, states: States) -> States:
    if name == "identity":
        return states
    dual = DUALS[name]

    def change(state: State) -> State:
        d1, d2 = _variances(state, states)
        values, slopes = dual(d1, d2, state.nngp)
        return replace(state, nngp=values, ntk=None if state.ntk is None else state.ntk * slopes)

    return _exact(_each(states, change))


def _normalised(layer: LayerNorm, states: States, name: str) -> States:
    """Covariances become correlations: at infinite width, the features of a sample have mean 0 and its variance."""
    if layer.affine or len(layer.shape) != 1 or states.across.space:
        raise LayerError(
            f"{name} is a LayerNorm over {layer.shape}" + (" with parameters" if layer.affine else ""),
            allowed="LayerNorm(features, affine=False) over the features of vectors",
            remedy="say affine=False, and put it after a Dense layer",
        )

    def change(state: State) -> State:
        d1, d2 = _variances(state, states)
        scale = 1 / np.sqrt((d1 + layer.eps) * (d2 + layer.eps))
        return replace(state, nngp=state.nngp * scale, ntk=None if state.ntk is None else state.ntk * scale)

    return _exact(_each(states, change))


def _added(layer: Residual, states: States, setting: Setting, name: str) -> States:
    """Kernels add up, since the branch ends in weights of its own: what it adds is independent of the shortcut."""
    if not _ends_in_weights(layer.layers):
        raise LayerError(
            f"{name} is a Residual whose branch ends in {kind_of(layer.layers[-1])}",
            allowed="a branch that ends in a Dense layer or a convolution, without an activation",
            remedy="end the branch so: what it adds must be independent of the shortcut",
        )
    branch = through(layer.layers, states, setting, f"{name}, layer ")
    beside = through(layer.shortcut, states, setting, f"{name}, shortcut ")

    def total(one: State, other: State) -> State:
        both = [k for k in (one.ntk, other.ntk) if k is not None]
        return replace(one, nngp=one.nngp + other.nngp, ntk=sum(both[1:], both[0]) if both else None)

    return States(
        total(branch.first, beside.first),
        total(branch.second, beside.second),
        total(branch.across, beside.across),
        states.same,
    )


def _ends_in_weights(layers: Sequence[Layer]) -> bool:
    last = layers[-1]
    if isinstance(last, Activation) and last.activation == "identity":
        return len(layers) > 1 and _ends_in_weights(layers[:-1])
    return isinstance(last, Dense | Conv1d | Conv2d) and last.activation == "identity"


def _exact(states: States) -> States:
    """Where both batches are one, the pair of a sample with itself has its own variance to the last digit.

    Angles are as sensitive as a square root: a difference in the last digit would be one of 1e-8.
    """
    if not states.same:
        return states
    nngp = states.across.nngp.copy()
    i = np.arange(len(nngp))
    nngp[i, i] = states.first.nngp
    return replace(states, across=replace(states.across, nngp=nngp))
