"""Centred kernel alignment: how alike two kernels are, as one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.analysis.features import layer_outputs
from udlbridge.analysis.inputs import KernelLike
from udlbridge.analysis.sums import statistics
from udlbridge.errors import NumericalError
from udlbridge.kernels.factored import FactoredKernel
from udlbridge.networks.inputs import checked_batch
from udlbridge.networks.model import Model


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
    phis = layer_outputs(model, batch, backends.get(backend))
    kernels: dict[str, KernelLike] = {f"layer {index}": FactoredKernel(phi) for index, phi in enumerate(phis)}
    return alignment_matrix({**kernels, "the target": target}, centred=centred)[:-1, -1]
