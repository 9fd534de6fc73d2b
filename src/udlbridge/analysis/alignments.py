"""Centred kernel alignment: how alike two kernels are, as one number; and the kernels of labels and of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.analysis.scaling import scale_exponent
from udlbridge.analysis.streaming import KernelLike, check_real, check_square, statistics
from udlbridge.backends.base import Backend
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.networks.inputs import checked_batch
from udlbridge.networks.model import Model

CHUNK = 4096
"""Samples that go through a network at once, so that a wide layer's outputs do not fill the memory."""


@overload
def label_kernel(y: np.ndarray, *, lazy: Literal[False] = False) -> Float[np.ndarray, "n n"]: ...


@overload
def label_kernel(y: np.ndarray, *, lazy: Literal[True]) -> FactoredKernel: ...


def label_kernel(y: np.ndarray, *, lazy: bool = False) -> Float[np.ndarray, "n n"] | FactoredKernel:
    """The kernel of the labels, Y Y'.

    Args:
        y: (n,) of -1 and +1, or one-hot (n, classes).
        lazy: keep Y and give blocks of the kernel when they are read, for kernels too large for memory.

    Returns:
        (n, n) float64: +1 and -1 for signs; 1 for equal and 0 for different classes otherwise.

    Raises:
        InputError, ShapeError: y is neither of the two.

    Source: Cortes, Mohri, Rostamizadeh (2012), section 2.
    """
    array = np.asarray(y)
    if array.dtype.kind not in "biuf" or array.size == 0 or array.ndim not in (1, 2):
        raise ShapeError(
            f"labels of shape {array.shape} and dtype {array.dtype}",
            allowed="(n,) of -1 and +1, or one-hot (n, classes)",
            remedy="np.where(labels == positive, 1.0, -1.0)",
        )
    wide = array.astype(np.float64)
    if array.ndim == 1:
        if not (np.abs(wide) == 1).all():
            raise InputError(
                f"labels with the values {np.unique(array)[:5].tolist()}",
                allowed="-1 and +1 in an array (n,), or one-hot (n, classes)",
                remedy="np.where(labels == positive, 1.0, -1.0), or np.eye(n_classes)[labels]",
            )
        return _gram(wide[:, None], lazy)
    if not (np.isin(wide, (0.0, 1.0)).all() and (wide.sum(axis=1) == 1).all()):
        raise InputError(
            "labels of two axes that are not one-hot",
            allowed="a single 1 in every row, otherwise 0",
            remedy="np.eye(n_classes)[labels]",
        )
    return _gram(wide, lazy)


def features(model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None) -> Float[np.ndarray, "n d"]:
    """The outputs phi(x) of one layer, its axes flattened into one.

    Args:
        model: the network.
        x: samples (n, *D), of the model's dtype.
        layer: index of the layer, negative from the end; -2 is what a linear readout sees.
        backend: as for `udlbridge.outputs`.

    Returns:
        (n, d), of the model's dtype.

    Raises:
        OptionError: there is no such layer.
        As `udlbridge.outputs`.
    """
    batch = checked_batch(model, x)
    count = len(model.layers)
    if not isinstance(layer, (int, np.integer)) or isinstance(layer, bool) or not -count <= layer < count:
        raise OptionError(
            f"layer={layer!r} of a model with {count} layers",
            allowed=f"{-count} to {count - 1}",
            remedy="layers count from 0; -1 is the last",
        )
    last = layer % count
    own = {name: value for name, value in model.arrays.items() if int(name.split(".")[0]) <= last}
    head = Model(model.layers[: last + 1], own, dtype=model.dtype.name)
    engine = backends.get(backend)
    parts = [engine.outputs(head, batch[start : start + CHUNK]) for start in range(0, len(batch), CHUNK)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])


@overload
def feature_kernel(
    model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None, lazy: Literal[False] = False
) -> Float[np.ndarray, "n n"]: ...


@overload
def feature_kernel(
    model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None, lazy: Literal[True]
) -> FactoredKernel: ...


def feature_kernel(
    model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None, lazy: bool = False
) -> Float[np.ndarray, "n n"] | FactoredKernel:
    """phi phi' for the outputs phi of one layer, (n, n), of the model's dtype.

    `lazy` keeps phi and gives blocks of the kernel when they are read, for kernels too large for memory. The other
    arguments, and the errors, are those of `features`.
    """
    return _gram(features(model, x, layer=layer, backend=backend), lazy)


def _gram(factor: np.ndarray, lazy: bool) -> Any:
    kernel = FactoredKernel(factor)
    return kernel if lazy else np.asarray(kernel)


def centre(k: np.ndarray) -> Float[np.ndarray, "n n"]:
    """Centre a kernel in feature space: (I - 11'/n) K (I - 11'/n).

    Computed from the means of rows and columns in O(n^2), never by forming the centring matrix.

    Args:
        k: (n, n), symmetric or not.

    Returns:
        (n, n) float64; rows and columns sum to zero.

    Raises:
        ShapeError, DTypeError: k is not a square matrix of real numbers.
        NumericalError: it has NaN or infinity in it, or centred entries are too large for float64.

    Source: Cortes, Mohri, Rostamizadeh (2012), Lemma 1.
    """
    check_square([k])
    wide = check_real(np.asarray(k)).astype(np.float64)
    exponent = scale_exponent(float(np.abs(wide).max()))
    with np.errstate(invalid="ignore", over="ignore"):
        np.ldexp(wide, -exponent, out=wide)
        wide -= wide.mean(axis=1, keepdims=True)
        wide -= wide.mean(axis=0, keepdims=True)
        np.ldexp(wide, exponent, out=wide)
    if not np.isfinite(wide).all():
        raise NumericalError(
            "the centred kernel is not finite", allowed="finite numbers", remedy="look for NaN and infinity in k"
        )
    return wide


def alignment(k1: KernelLike, k2: KernelLike, *, centred: bool = True, tile: int | None = None) -> float:
    """<K1c, K2c>_F / (|K1c|_F |K2c|_F), the centred alignment of two kernels; for feature kernels, their linear CKA.

    One pass over tiles; the centred kernels are never formed. Sums are kept in float64 whatever the kernels' dtype, and
    each kernel in a unit of its own, so that entries of any size are taken.

    Precision: what centring takes off a kernel costs digits. The error is about 1e-15 (|K|/|Kc|)^2 for the worse of the
    two, after a common offset is taken off, which costs nothing. A large term of single rows or columns stays: one of
    1e7 on entries of about 1 leaves two or three digits. Where that matters, and the kernels fit into memory, take
    `alignment(centre(k1), centre(k2))`, whose error is about 1e-16 |K|/|Kc|.

    Args:
        k1, k2: (n, n) arrays, or anything with `shape` and two-dimensional slicing; they may be on disk.
        centred: False leaves out the centring.
        tile: side of the blocks that are read at once; None takes that of a kernel store, or else `TILE`.

    Returns:
        A number in [-1, 1], and in [0, 1] for positive semidefinite kernels.

    Raises:
        InputError, ShapeError, DTypeError: not matrices of real numbers, not square, or of different size.
        OptionError: a tile that is no number of samples.
        NumericalError: a (centred) kernel vanishes, as that of labels that are all equal, or is not finite.

    Source: Cortes, Mohri, Rostamizadeh (2012), definition 4; Kornblith et al. (2019) for CKA.
    """
    return float(alignment_matrix([k1, k2], centred=centred, tile=tile)[0, 1])


def alignment_matrix(
    kernels: Sequence[KernelLike] | Mapping[str, KernelLike], *, centred: bool = True, tile: int | None = None
) -> Float[np.ndarray, "m m"]:
    """Alignments of all pairs of m kernels, (m, m), from one pass over all of them; ones on the diagonal.

    Arguments and errors are those of `alignment`. A mapping is taken in its order.
    """
    ordered = list(kernels.values()) if isinstance(kernels, Mapping) else list(kernels)
    names = list(kernels) if isinstance(kernels, Mapping) else [f"kernel {index}" for index in range(len(ordered))]
    found = statistics(ordered, tile=tile)
    with np.errstate(invalid="ignore", over="ignore"):
        products = found.products(centred)
    for index, name in enumerate(names):
        if not np.isfinite(products[index, index]):
            raise NumericalError(f"{name} is not finite", remedy="look for NaN and infinity in it")
        if products[index, index] <= found.rounding(index, centred):
            raise NumericalError(
                f"{name} has no norm{' once it is centred' if centred else ''}, so its alignment is not defined",
                allowed="kernels that are not constant" if centred else "kernels that are not zero",
                remedy="are all labels, or all features, equal? Take samples of at least two classes",
            )
    norms = np.sqrt(np.diag(products))
    result = np.clip(products / np.outer(norms, norms), -1.0, 1.0)
    np.fill_diagonal(result, 1.0)
    return result


def layer_alignments(
    model: Model,
    x: np.ndarray,
    target: KernelLike,
    *,
    centred: bool = True,
    backend: str | None = None,
) -> Float[np.ndarray, " layers"]:
    """Alignment of the feature kernel of every layer with one kernel, as that of the labels.

    Args:
        model, x, backend: as for `features`.
        target: (n, n).
        centred: as for `alignment`.

    Returns:
        One number for each layer, in their order.

    Raises:
        As `features` and `alignment`.
    """
    batch = checked_batch(model, x)
    phis = _layer_outputs(model, batch, backends.get(backend))
    kernels: dict[str, KernelLike] = {f"layer {index}": FactoredKernel(phi) for index, phi in enumerate(phis)}
    return alignment_matrix({**kernels, "the target": target}, centred=centred)[:-1, -1]


def _layer_outputs(model: Model, batch: np.ndarray, engine: Backend[Any]) -> list[np.ndarray]:
    """phi of every layer, (n, d) each, from one forward pass: a layer takes what the one before it gave."""
    layers = [
        Model(
            [layer],
            {f"0.{name}": value for name, value in model.layer_arrays(index).items()},
            dtype=model.dtype.name,
        )
        for index, layer in enumerate(model.layers)
    ]
    parts: list[list[np.ndarray]] = [[] for _ in layers]
    for start in range(0, len(batch), CHUNK):
        values = batch[start : start + CHUNK]
        for layer, found in zip(layers, parts, strict=True):
            values = np.ascontiguousarray(engine.outputs(layer, values))
            found.append(values.reshape(len(values), -1))
    return [np.concatenate(found) for found in parts]
