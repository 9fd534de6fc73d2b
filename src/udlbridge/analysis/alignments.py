"""Centred kernel alignment: how alike two kernels are, as one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.features import layer_outputs, lazy_kernel
from udlbridge.analysis.hsic import LEAST, Covariances, covariances, covariances_of
from udlbridge.analysis.inputs import KernelLike, check_square, first_not_finite
from udlbridge.analysis.sums import Statistics, statistics
from udlbridge.arrays import as_kernel
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError
from udlbridge.kernels.request import as_network, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import brief, checked_choice, checked_count, checked_flag, checked_list
from udlbridge.texts import counted
from udlbridge.words import EngineWord

ESTIMATORS = ("biased", "unbiased")
"""How the covariance between the features of two kernels is estimated from n samples."""


def alignment(
    k1: KernelLike,
    k2: KernelLike,
    *,
    centred: bool = True,
    estimator: str = "biased",
    batch: int | None = None,
    tile: int | None = None,
) -> float:
    """<K1c, K2c>_F / (|K1c|_F |K2c|_F), the centred alignment of two kernels; for feature kernels, their linear CKA.

    One pass over tiles; the centred kernels are never formed. Sums are kept in float64 whatever the kernels' dtype, and
    each kernel in a unit of its own, so that entries of any size are taken.

    Estimators: the alignment of few samples is too high. Independent features of 8 dimensions have 0.2 on 32 samples,
    and nearer to 1 the fewer the samples. "unbiased" estimates all three products, HSIC of the two kernels and of
    each with itself, without bias: 0 for independent features, within its error, so that it may be negative. With
    `batch` these three are sums over batches of consecutive samples, of which only the blocks on the diagonal are read,
    and the estimate stays what it is, with a larger error ("minibatch CKA"; shuffle samples that come in an order).

    Precision: what centring subtracts costs digits. The error is about 1e-15 (|K|/|Kc|)^2 for the worse of the two,
    after a common offset is subtracted, which costs nothing. A large term of single rows or columns stays: one of
    1e7 on entries of about 1 leaves two or three digits. Where that matters, and the kernels fit into memory, take
    `alignment(centre(k1), centre(k2))`, whose error is about 1e-16 |K|/|Kc|.

    Args:
        k1, k2: (n, n) arrays, or anything with `shape` and two-dimensional slicing; they may be on disk. Those of the
            unbiased estimate are symmetric.
        centred: False leaves out the centring; for the biased estimator alone.
        estimator: "biased", the formula above, or "unbiased".
        batch: of the unbiased estimator: how many samples at a time, at least 4; None takes all pairs of all samples.
            Where it does not divide n, batches are a little larger.
        tile: side of the blocks that are read at once; None takes that of a kernel store, or else `TILE`.

    Returns:
        A number in [-1, 1]; biased and of positive semidefinite kernels, in [0, 1].

    Raises:
        InputError, ShapeError, DTypeError: not matrices of real numbers, not square, or of different size; for the
            unbiased estimator, not symmetric, or of fewer than 4 samples.
        OptionError: an estimator that does not exist, options that exclude each other, a tile or batch that is not
            a number of samples.
        NumericalError: a (centred) kernel vanishes, as that of labels that are all equal, or is not finite.

    Source: Cortes, Mohri, Rostamizadeh (2012), definition 4; Kornblith et al. (2019) for CKA; Song et al. (2012) for
    the unbiased HSIC; Nguyen, Raghu, Kornblith (2021) for batches.

    Examples:
        >>> k = np.diag([1.0, 2.0, 3.0])
        >>> round(ub.alignment(k, 2 * k), 6)
        1.0
    """
    options: dict[str, Any] = {"centred": centred, "estimator": estimator, "batch": batch, "tile": tile}
    return float(alignment_matrix([k1, k2], **options)[0, 1])


def alignment_matrix(
    kernels: Sequence[KernelLike] | Mapping[str, KernelLike],
    *,
    centred: bool = True,
    estimator: str = "biased",
    batch: int | None = None,
    tile: int | None = None,
) -> Float[np.ndarray, "m m"]:
    """Alignments of all pairs of m kernels, (m, m), from one pass over all of them; ones on the diagonal.

    Arguments are those of `alignment`. The kernels of a mapping are taken in its order.

    Raises:
        As `alignment`.

    Examples:
        >>> k = np.diag([1.0, 2.0, 3.0])
        >>> ub.alignment_matrix([k, 2 * k]).round(6)
        array([[1., 1.],
               [1., 1.]])
    """
    given = kernels.values() if isinstance(kernels, Mapping) else kernels
    ordered = checked_list("kernels", given, "kernels, in a list or by name", "as kernels=[k1, k2]")
    names = list(kernels) if isinstance(kernels, Mapping) else [f"kernel {index}" for index in range(len(ordered))]
    batch = checked_estimator(estimator, centred, batch)
    ordered, _ = checked_kernels(ordered, names, estimator)
    if batch is not None:
        return _normalised(covariances(ordered, batch), ordered, names)
    return aligned(
        statistics(ordered, tile=tile, symmetric=estimator == "unbiased"), ordered, names, estimator, centred
    )


def aligned(
    sums: Statistics,
    kernels: Sequence[KernelLike],
    names: Sequence[str],
    estimator: str = "biased",
    centred: bool = True,
) -> Float[np.ndarray, "m m"]:
    """The alignments of all pairs of kernels from the sums over them; an error may name an entry of theirs.

    Raises:
        InputError: without bias, of a kernel that is known not to be symmetric.
        NumericalError: a kernel has no norm, or is not finite.
    """
    if estimator == "unbiased":
        return _normalised(covariances_of(sums), kernels, names)
    with np.errstate(invalid="ignore", over="ignore"):
        products = sums.products(centred)
    for index, name in enumerate(names):
        _check_finite(kernels[index], name, products[index, index])
        if products[index, index] <= sums.rounding(index, centred):
            raise NumericalError(
                f"{name} has no norm{' once it is centred' if centred else ''}, so its alignment is not defined",
                allowed="kernels that are not constant" if centred else "kernels that are not zero",
                remedy="are all labels, or all features, equal? Take samples of at least two classes",
            )
    norms = np.sqrt(np.diag(products))
    result = np.clip(products / np.outer(norms, norms), -1.0, 1.0)
    np.fill_diagonal(result, 1.0)
    return result


def checked_estimator(estimator: object, centred: object = True, batch: object = None) -> int | None:
    """The batch, where the three options go together.

    Raises:
        OptionError: they do not, or one of them is invalid.
    """
    word, centred = checked_choice("estimator", estimator, ESTIMATORS), checked_flag("centred", centred)
    if word == "biased" and batch is not None:
        raise OptionError(
            f"batch={brief(batch)} with the biased estimator",
            allowed='batch= with estimator="unbiased": the bias of small batches would be that of the result',
            remedy='say estimator="unbiased", or leave batch out',
        )
    if word == "unbiased" and not centred:
        raise OptionError(
            'estimator="unbiased" without centring',
            allowed="the unbiased estimate of the centred alignment",
            remedy="leave centred out",
        )
    return None if batch is None else checked_count("batch", batch, LEAST)


def checked_kernels(
    kernels: Sequence[object], names: Sequence[str], estimator: str, least: int = LEAST
) -> tuple[list[KernelLike], int]:
    """Kernels in any container, to be read in blocks, and their number of samples; without bias, at least `least`.

    Raises:
        ShapeError, InputError, DTypeError: as `as_kernel` and `check_square`; too few samples.
    """
    read = [as_kernel(kernel, name) for kernel, name in zip(kernels, names, strict=True)]
    n = check_square(read)
    if estimator == "unbiased" and n < least:
        raise ShapeError(
            f"kernels of {counted(n, 'sample')}",
            allowed=f"at least {least}: the unbiased estimate compares pairs of pairs of different samples",
            remedy='take more samples, or estimator="biased"',
        )
    return read, n


def check_symmetric(sums: Statistics | Covariances, names: Sequence[str]) -> None:
    """Raise `InputError` for kernels that are known not to be symmetric."""
    for skew, name in zip(sums.skew, names, strict=True):
        if skew > 1:
            raise InputError(
                f"{name} is not symmetric",
                allowed="symmetric kernels, of the same samples on both sides",
                remedy='a kernel between different samples (x2=) has a biased alignment alone: estimator="biased"',
            )


def _check_finite(kernel: KernelLike, name: str, square: float) -> None:
    if not np.isfinite(square):
        raise NumericalError(first_not_finite(kernel, name), remedy="find the origin of that entry")


def _normalised(found: Covariances, kernels: Sequence[KernelLike], names: Sequence[str]) -> Float[np.ndarray, "m m"]:
    """Covariances of kernels divided by the roots of those of each with itself.

    Raises:
        InputError: a kernel that is not symmetric.
        NumericalError: one that is not finite, or whose covariance with itself is zero or rounding; it is a sum of
            squares, of the kernel as it is centred for the estimate.
    """
    squares = np.diag(found.values)
    for kernel, name, square in zip(kernels, names, squares, strict=True):
        _check_finite(kernel, name, square)
    check_symmetric(found, names)
    for name, square, rounding in zip(names, squares, found.rounding, strict=True):
        if square <= rounding:
            raise NumericalError(
                f"{name} has no norm once it is centred without bias, so its alignment is not defined",
                allowed="kernels with differences off the diagonal",
                remedy="are all labels, or all features, equal, or are all samples orthogonal? Take others",
            )
    roots = np.sqrt(squares)
    result = np.clip(found.values / np.outer(roots, roots), -1.0, 1.0)
    np.fill_diagonal(result, 1.0)
    return result


def layer_alignments(
    model: Model | Any,
    x: Any,
    target: KernelLike,
    *,
    centred: bool = True,
    estimator: str = "biased",
    backend: EngineWord | None = None,
    output: Any = None,
) -> Float[np.ndarray, " layers"] | dict[str, float]:
    """Alignment of the feature kernel of every layer with one kernel, as that of the labels.

    Args:
        model, x, backend, output: as for `features`.
        target: (n, n).
        centred, estimator: as for `alignment`.

    Returns:
        One number for each layer, in their order. Of a `torch.nn.Module` a dict: the innermost modules that forward
        calls, in the order of their calls, by their paths, with "#2" after that of a second call.

    Raises:
        NumericalError: an entry of a layer's kernel is not finite; the error names the layer and the sample.
        As `features` and `alignment`.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)])
        >>> found = ub.layer_alignments(model, np.eye(2, dtype="float32"), ub.label_kernel([1, -1]))
        >>> len(found)
        2
    """
    network = as_network(model, output=output)
    batch = checked_samples(network, x)
    phis = layer_outputs(network, batch, checked_engine(network, backend))
    checked_estimator(estimator, centred)
    kernels: dict[str, KernelLike] = {
        f"layer {name}": lazy_kernel(phi, f"the kernel of layer {name}") for name, phi in phis.items()
    }
    found = alignment_matrix({**kernels, "the target": target}, centred=centred, estimator=estimator)[:-1, -1]
    if isinstance(network, ForeignNetwork):
        return {name: float(value) for name, value in zip(network.layer_kinds, found, strict=True)}
    return found
