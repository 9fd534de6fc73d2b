"""Centred kernel alignment: how alike two kernels are, as one number; and the kernels of labels and of features.

The statistics need one pass over the kernels, tile by tile, so kernels may be larger than memory: anything with a
`shape` and two-dimensional slicing serves (an array, a memory map, a store on disk).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from udlbridge import backends
from udlbridge.errors import DTypeError, InputError, NumericalError, OptionError, ShapeError
from udlbridge.inputs import checked_batch
from udlbridge.model import Model

TILE = 2048
"""Side of the blocks that are read at once, unless the kernel is stored in tiles of its own."""

STRIP = 64 * 1024
"""Entries that are worked on at once: as float64 they stay in a core's cache."""

CHUNK = 4096
"""Samples that go through a network at once, so that a wide layer's outputs do not fill the memory."""


@runtime_checkable
class KernelLike(Protocol):
    """A square matrix that can be read in blocks: `k[i:j, p:q]`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n)."""

    def __getitem__(self, block: tuple[slice, slice], /) -> Any:
        """One block, as an array or something that `np.asarray` takes."""


def label_kernel(y: np.ndarray) -> Float[np.ndarray, "n n"]:
    """The kernel of the labels, Y Y'.

    Args:
        y: (n,) of -1 and +1, or one-hot (n, classes).

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
        return np.outer(wide, wide)
    if not (np.isin(wide, (0.0, 1.0)).all() and (wide.sum(axis=1) == 1).all()):
        raise InputError(
            "labels of two axes that are not one-hot",
            allowed="a single 1 in every row, otherwise 0",
            remedy="np.eye(n_classes)[labels]",
        )
    return wide @ wide.T


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
    if not -count <= layer < count:
        raise OptionError(
            f"layer={layer} of a model with {count} layers",
            allowed=f"{-count} to {count - 1}",
            remedy="layers count from 0; -1 is the last",
        )
    last = layer % count
    own = {name: value for name, value in model.arrays.items() if int(name.split(".")[0]) <= last}
    head = Model(model.layers[: last + 1], own, dtype=model.dtype.name)
    engine = backends.get(backend)
    parts = [engine.outputs(head, batch[start : start + CHUNK]) for start in range(0, len(batch), CHUNK)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])


def feature_kernel(
    model: Model, x: np.ndarray, *, layer: int = -2, backend: str | None = None
) -> Float[np.ndarray, "n n"]:
    """phi phi' for the outputs phi of one layer. Arguments and errors are those of `features`; (n, n)."""
    phi = features(model, x, layer=layer, backend=backend)
    return phi @ phi.T


def centre(k: np.ndarray) -> Float[np.ndarray, "n n"]:
    """Centre a kernel in feature space: (I - 11'/n) K (I - 11'/n).

    Computed from the means of rows and columns in O(n^2), never by forming the centring matrix.

    Args:
        k: (n, n), symmetric or not.

    Returns:
        (n, n) float64; rows and columns sum to zero.

    Raises:
        ShapeError, DTypeError: k is not a square matrix of real numbers.

    Source: Cortes, Mohri, Rostamizadeh (2012), Lemma 1.
    """
    array = np.asarray(k)
    _check_square([array])
    wide = array.astype(np.float64)
    wide -= wide.mean(axis=1, keepdims=True)
    wide -= wide.mean(axis=0, keepdims=True)
    return wide


def alignment(k1: KernelLike, k2: KernelLike, *, centred: bool = True, tile: int | None = None) -> float:
    """<K1c, K2c>_F / (|K1c|_F |K2c|_F), the centred alignment of two kernels; for feature kernels, their linear CKA.

    One pass over tiles; the centred kernels are never formed. Sums are kept in float64 whatever the kernels' dtype.

    Args:
        k1, k2: (n, n) arrays, or anything with `shape` and two-dimensional slicing; they may be on disk.
        centred: False leaves out the centring.
        tile: side of the blocks that are read at once; None takes that of a kernel store, or else `TILE`.

    Returns:
        A number in [-1, 1], and in [0, 1] for positive semidefinite kernels.

    Raises:
        ShapeError: not square, or of different size.
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
    values = [
        alignment(feature_kernel(model, x, layer=index, backend=backend), target, centred=centred)
        for index in range(len(model.layers))
    ]
    return np.array(values)


@dataclass(frozen=True)
class Statistics:
    """What centring and alignment need of m kernels, after a constant was taken off each.

    `inner` (m, m): sums of products; `rows`, `columns` (m, n): sums over the other axis; `shifts` (m,): the constants;
    `eps` (m,): the rounding unit of each kernel's dtype.
    """

    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shifts: np.ndarray
    eps: np.ndarray

    def products(self, centred: bool) -> Float[np.ndarray, "m m"]:
        """<Ka, Kb>_F for all pairs, centred or as they are.

        With H = I - 11'/n: <HAH, HBH> = <A, B> - <A1, B1>/n - <A'1, B'1>/n + (1'A1)(1'B1)/n^2.
        """
        n = self.rows.shape[1]
        totals = self.rows.sum(axis=1)
        if centred:
            spread = self.rows @ self.rows.T + self.columns @ self.columns.T
            return self.inner - spread / n + np.outer(totals, totals) / n**2
        crossed = np.outer(self.shifts, totals)
        return self.inner + crossed + crossed.T + np.outer(self.shifts, self.shifts) * float(n) ** 2

    def rounding(self, index: int, centred: bool) -> float:
        """A square norm that kernel `index` may have by rounding alone: of its entries, and of these sums."""
        whole = self.products(centred=False)[index, index]
        own = (4 * self.eps[index]) ** 2 * whole
        return max(own, 16 * np.finfo(np.float64).eps * self.inner[index, index]) if centred else own


def statistics(kernels: Sequence[KernelLike], *, tile: int | None = None) -> Statistics:
    """One pass over all kernels together; every entry is read once.

    Centring is blind to a constant added to a kernel. So the mean of the first block is taken off, or else a large
    common offset would eat the digits of the centred sums.

    Args:
        kernels: m of size (n, n).
        tile: side of the blocks that are read at once, as for `alignment`.

    Raises:
        ShapeError, DTypeError: not square, of different size, or not real.
        OptionError: no tile.
    """
    n = _check_square(kernels)
    if tile is None:
        # A store decodes a whole tile to give a part of it.
        tile = max((int(kernel.grid.tile) for kernel in kernels if hasattr(kernel, "grid")), default=TILE)
    if tile < 1:
        raise OptionError(f"tile={tile}", allowed="at least 1", remedy="leave it at its default")
    corner = slice(0, min(tile, n))
    first = [_block(kernel, corner, corner) for kernel in kernels]
    shifts = np.array([float(block.mean(dtype=np.float64)) for block in first])
    eps = np.array([np.finfo(block.dtype if block.dtype.kind == "f" else np.float64).eps for block in first])
    bands = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]

    def one(band: slice) -> Band:
        # NaN and infinity are reported by what comes of them; errstate is a matter of each thread.
        with np.errstate(invalid="ignore", over="ignore"):
            return _band_statistics(kernels, shifts, band, bands, first if band.start == 0 else None)

    # The sums of a band do not depend on which thread takes it, and bands are added in order: so the result does not
    # depend on the number of threads. BLAS gets one thread, since the bands keep the cores busy.
    workers = min(len(bands), os.cpu_count() or 1)
    if workers == 1:
        parts = [one(band) for band in bands]
    else:
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(one, bands))
    inner = np.sum([part.inner for part in parts], axis=0)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    columns = np.sum([part.columns for part in parts], axis=0)
    return Statistics(np.tril(inner) + np.tril(inner, -1).T, rows, columns, shifts, eps)


class Band(NamedTuple):
    """What a band of rows adds: `inner` (m, m), its lower triangle alone; `rows` (m, height); `columns` (m, n)."""

    inner: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def _band_statistics(
    kernels: Sequence[KernelLike],
    shifts: np.ndarray,
    band: slice,
    across: Sequence[slice],
    first: list[np.ndarray] | None,
) -> Band:
    """The sums of one band of rows, block by block, and within a block by strips that stay in the cache.

    `first`: the blocks of the corner, if this band has them.
    """
    m, n, tall = len(kernels), across[-1].stop, band.stop - band.start
    result = Band(np.zeros((m, m)), np.zeros((m, tall)), np.zeros((m, n)))
    for there in across:
        read_already = first if there.start == 0 else None
        blocks = read_already or [_block(kernel, band, there) for kernel in kernels]
        wide = there.stop - there.start
        height = max(1, min(STRIP // wide, tall))
        buffer = np.empty((m, height, wide))
        ones_right, ones_left = np.ones(wide), np.ones(height)
        for top in range(0, tall, height):
            own = slice(top, min(top + height, tall))
            strips = buffer[:, : own.stop - own.start]
            for index, (block, shift) in enumerate(zip(blocks, shifts, strict=True)):
                np.subtract(block[own], shift, out=strips[index])
                result.rows[index, own] += strips[index] @ ones_right
                result.columns[index, there] += ones_left[: own.stop - own.start] @ strips[index]
                for other in range(index + 1):
                    result.inner[index, other] += np.dot(strips[index].ravel(), strips[other].ravel())
    return result


def _block(kernel: KernelLike, here: slice, there: slice) -> np.ndarray:
    block = np.asarray(kernel[here, there])
    if block.dtype.kind not in "biuf":
        raise DTypeError(f"a kernel of dtype {block.dtype}", allowed="real numbers", remedy="convert it")
    return block


def _check_square(kernels: Sequence[KernelLike]) -> int:
    """The common n of kernels (n, n)."""
    shapes = [tuple(kernel.shape) for kernel in kernels]
    for shape in shapes:
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise ShapeError(
                f"a kernel of shape {shape}",
                allowed="a square matrix (n, n)",
                remedy='take one reduction of the outputs, as ntk(..., outputs="trace")',
            )
    if len(set(shapes)) != 1:
        raise ShapeError(
            f"kernels of different size: {', '.join(map(str, dict.fromkeys(shapes)))}" if shapes else "no kernels",
            allowed="kernels of the same samples",
            remedy="compute all of them on the same x",
        )
    return shapes[0][0]
