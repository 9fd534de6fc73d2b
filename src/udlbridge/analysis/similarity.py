"""How alike the layers of two networks are, each with each: a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.analysis.alignments import alignment_matrix
from udlbridge.analysis.features import layer_outputs, lazy_kernel
from udlbridge.displays import Displayed, draw
from udlbridge.errors import NumericalError, ShapeError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.request import as_network, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.options import checked_choice
from udlbridge.reports import frozen_array, json_ready, same_fields
from udlbridge.texts import counted
from udlbridge.words import EngineWord

TILE = 512
"""Samples whose distances are held at a time, on either side."""


@dataclass(frozen=True, eq=False, repr=False)
class SimilarityMap(Displayed):
    """`values[a, b]`: how alike layer a of the first network and layer b of the second one are, at most 1.

    `first` and `second` name the layers, `backends` are the engines that evaluated the networks.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> found = ub.similarity_map(model, model, np.random.default_rng(0).normal(size=(5, 2)))
        >>> found.measure, found.values.diagonal().round(6)
        ('cka', array([1., 1.]))
    """

    values: np.ndarray
    measure: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    n: int
    backends: tuple[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen_array(self.values))

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.measure, self.first, self.second, self.n, self.values.tobytes()))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return dict(json_ready(self))

    def __str__(self) -> str:
        width = max(len(name) for name in self.first)
        lines = [f"{self.measure} of layers, {self.backends[0]} by {self.backends[1]}, {counted(self.n, 'sample')}"]
        lines.append(" " * width + "".join(f"  {index:>5}" for index in range(len(self.second))))
        for name, row in zip(self.first, self.values, strict=True):
            lines.append(f"{name:<{width}}" + "".join(f"  {value:5.3f}" for value in row))
        return "\n".join([*lines, *(f"{index:>3}: {name}" for index, name in enumerate(self.second))])

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [
            {"layer": name, **dict(zip(self.second, map(float, row), strict=True))}
            for name, row in zip(self.first, self.values, strict=True)
        ]

    def plot(self, ax: Any = None) -> Any:
        """The map with its colour bar, on `ax` or a new figure; returns the Axes."""
        return draw("similarity:draw_similarity", ax, self, "")


def similarity_map(
    network1: Model | Any,
    network2: Model | Any,
    x: Any,
    measure: str = "cka",
    *,
    backend: EngineWord | None = None,
    backend2: str | None = None,
    output: Any = None,
    output2: Any = None,
) -> SimilarityMap:
    """Compare the outputs of every layer of one network with those of every layer of another, on the same samples.

    The networks may differ in everything but the shape of a sample: two architectures, one network in two languages, or
    before and after training. Samples go through in chunks, and kernels and distances are taken in tiles; what is held
    are the features of all layers, (n, d) each.

    | measure | of features X (n, p) and Y (n, q), centred | range |
    |---|---|---|
    | "cka" | tr KL / sqrt(tr KK tr LL) of the kernels K = XX' and L = YY': their alignment | 0 to 1 |
    | "procrustes" | sum of the singular values of X'Y / sqrt(tr X'X tr Y'Y): how near a rotation brings them | 0 to 1 |
    | "rsa" | correlation of the Euclidean distances of all pairs of samples | -1 to 1 |

    All three ignore shifts, rotations, reflections and a common scale of the features, and none ignores other linear
    maps, which would take a network a layer of its own.

    Args:
        network1, network2: the networks.
        x: samples (n, *D) that both take, of their dtype; n >= 3.
        measure: "cka", "procrustes" or "rsa".
        backend, backend2: the engines that evaluate the first and the second network; None means the default one, and
            for the second that of the first. A `torch.nn.Module` is always evaluated by torch.
        output, output2: which of the outputs of a module counts, as for `udlbridge.as_network`.

    Raises:
        OptionError: a measure that does not exist.
        ShapeError: fewer than 3 samples.
        InputError, DTypeError: what is wrong with `x`.
        NumericalError: a layer gives the same for all samples, or an entry of its outputs or its kernel is not finite;
            the error names it.

    Source: Kornblith et al. (2019) for CKA; Williams et al., Generalized shape metrics on neural representations
    (2021); Kriegeskorte, Mur, Bandettini, Representational similarity analysis (2008).

    Examples:
        >>> first = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> x = np.random.default_rng(0).normal(size=(5, 2))
        >>> ub.similarity_map(first, ub.Model([ub.Dense(2, 4)], dtype="float64"), x).values.shape
        (2, 1)
    """
    measure = checked_choice("measure", measure, MEASURES)
    networks = as_network(network1, output=output), as_network(network2, output=output2)
    one, other = (isinstance(network, ForeignNetwork) for network in networks)
    first = checked_engine(networks[0], backend)
    names = first, checked_engine(networks[1], first if backend2 is None and not (one or other) else backend2)
    samples = [checked_samples(network, x) for network in networks]
    n = len(samples[0])
    if n < 3:
        raise ShapeError(counted(n, "sample"), allowed="at least 3", remedy="give more")
    sides = [layer_outputs(*side) for side in zip(networks, samples, names, strict=True)]
    for side in sides:
        _check_varying(side)
    values = MEASURES[measure](*sides)
    return SimilarityMap(values, measure, tuple(sides[0]), tuple(sides[1]), n, names)


def _check_varying(features: Mapping[str, np.ndarray]) -> None:
    for label, phi in features.items():
        check_finite(phi, f"the outputs of layer {label}")
        # Equal samples may give what differs by rounding, since products of matrices sum in several ways.
        if np.abs(phi - phi[0]).max() <= 16 * np.finfo(phi.dtype).eps * np.abs(phi).max():
            raise NumericalError(
                f"layer {label} gives the same for all samples, so that it is like no other",
                allowed="layers whose outputs differ",
                remedy="are the samples equal, or all units of the layer dead?",
            )


def _aligned(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Float[np.ndarray, "a b"]:
    """Centred alignments of the kernels, from one pass over their tiles."""
    sides = ((label, phi) for side in (first, second) for label, phi in side.items())
    kernels = [lazy_kernel(phi, f"the kernel of layer {label}") for label, phi in sides]
    return alignment_matrix(kernels)[: len(first), len(first) :]


def _rotated(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Float[np.ndarray, "a b"]:
    """Nuclear norms of the products of features that are centred and of norm 1."""
    left, right = ([_unit(phi) for phi in side.values()] for side in (first, second))
    return np.array([[np.linalg.svd(a.T @ b, compute_uv=False).sum() for b in right] for a in left]).clip(0, 1)


def _unit(phi: np.ndarray) -> Float[np.ndarray, "n d"]:
    """Centred and of norm 1; of more features than samples, turned into as many as samples."""
    wide = phi.astype(np.float64)
    wide /= np.abs(wide).max()  # whose squares neither vanish nor overflow
    wide -= wide.mean(axis=0)
    if wide.shape[1] > len(wide):
        wide = np.asarray(np.linalg.qr(wide.T, mode="r")).T
    return np.asarray(wide / np.linalg.norm(wide))


def _distanced(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Float[np.ndarray, "a b"]:
    """Correlations of distances, over the tiles of one triangle."""
    features = [_unit(phi) * np.sqrt(len(phi)) for side in (first, second) for phi in side.values()]
    n, m = len(features[0]), len(features)
    # Sums of distances less a first guess of their mean, so that what is summed is small and keeps its digits.
    guesses = np.array([_distances(phi[:TILE], phi[:TILE]).mean() for phi in features])
    sums, products, count = np.zeros(m), np.zeros((m, m)), 0
    for top in range(0, n, TILE):
        for left in range(0, top + 1, TILE):
            rows, columns = slice(top, top + TILE), slice(left, left + TILE)
            found = [_distances(phi[rows], phi[columns]) - guess for phi, guess in zip(features, guesses, strict=True)]
            if top == left:
                below = np.tril_indices(len(found[0]), -1)
                flat = np.array([part[below] for part in found])
            else:
                flat = np.array([part.reshape(-1) for part in found])
            sums += flat.sum(axis=1)
            products += flat @ flat.T
            count += flat.shape[1]
    covariances = products / count - np.outer(sums, sums) / count**2
    spreads = np.sqrt(np.diag(covariances))
    if not (spreads > 0).all():
        raise NumericalError(
            "all distances between samples are equal, so that there is no correlation of them",
            allowed="features whose distances differ",
            remedy='take more samples, or measure="cka"',
        )
    correlations = (covariances / np.outer(spreads, spreads)).clip(-1, 1)
    return np.asarray(correlations[: len(first), len(first) :])


def _distances(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "r c"]:
    """Euclidean distances of rows, by one product."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


MEASURES = {"cka": _aligned, "procrustes": _rotated, "rsa": _distanced}
"""What may be measured."""
