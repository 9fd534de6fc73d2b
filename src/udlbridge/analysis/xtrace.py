"""Traces of a symmetric matrix and of its square from products with random vectors, each vector used twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.errors import InputError


@dataclass(frozen=True)
class Traces:
    """Estimates of tr A and of tr A^2 = |A|_F^2 from m probes, and, (m,) each, those without one of the probes."""

    trace: float
    square: float
    other_traces: Float[np.ndarray, " m"]
    other_squares: Float[np.ndarray, " m"]


def xtrace(matrix: Any, n: int, probes: int, generator: np.random.Generator, eps: float) -> Traces:
    """Traces from 2 `probes` products, without bias.

    For each probe w, the others give a basis Q of what they see of A. There the trace, tr Q'AQ, is known, and w
    estimates that of the rest, (I - QQ') A (I - QQ'), where it is uniform on a sphere. So what a few directions hold,
    as the large eigenvalues of a kernel, has no variance. The estimate is the mean over all probes.

    Args:
        matrix: symmetric, of order n, with `@` of blocks of vectors (n, k).
        n: the order, above `probes`.
        probes: m, at least 3.
        generator: draws them.
        eps: rounding of the products, relative to the matrix.

    Raises:
        InputError: the matrix is not symmetric.

    Source: Epperly, Tropp, Webber, XTrace: making the most of every sample in stochastic trace estimation (2024),
    algorithm 2.2 with normalised probes (section 2.4).
    """
    omega = generator.standard_normal((n, probes))
    omega *= np.sqrt(n) / np.linalg.norm(omega, axis=0)
    image = np.asarray(matrix @ omega)
    check_symmetric(omega, image, eps)
    sketch = _Sketch.of(matrix, omega, image)
    every = list(range(probes))
    trace, square = sketch.estimates(every)
    others = np.array([sketch.estimates([probe for probe in every if probe != index]) for index in every])
    return Traces(trace, square, others[:, 0], others[:, 1])


@dataclass(frozen=True)
class _Sketch:
    """All that estimates from any of the m probes take, in the basis Q (n, m) of A times all of them.

    A probe is Q `seen` + what lies outside of Q, whose image under A is V. `triangle` is Q'A w, `inner` Q'AQ, `gram`
    (AQ)'AQ; `outside`, `forms`, `lengths` (m,) are the squares of what lies outside, its product with V, and |V|^2;
    `crossed` (m, m) are Q'V + (AQ)' times what lies outside, `mixed` are (AQ)'V, by columns.
    """

    n: int
    triangle: np.ndarray
    inner: np.ndarray
    gram: np.ndarray
    seen: np.ndarray
    outside: np.ndarray
    forms: np.ndarray
    lengths: np.ndarray
    crossed: np.ndarray
    mixed: np.ndarray

    @classmethod
    def of(cls, matrix: Any, omega: np.ndarray, image: np.ndarray) -> _Sketch:
        """From the probes and their images, by as many products again."""
        basis, triangle = np.linalg.qr(image)
        second = np.asarray(matrix @ basis)
        seen = basis.T @ omega
        rest = omega - basis @ seen
        moved = image - second @ seen
        return cls(
            n=len(omega),
            triangle=triangle,
            inner=basis.T @ second,
            gram=second.T @ second,
            seen=seen,
            outside=(rest**2).sum(axis=0),
            forms=(rest * moved).sum(axis=0),
            lengths=(moved**2).sum(axis=0),
            crossed=basis.T @ moved + second.T @ rest,
            mixed=second.T @ moved,
        )

    def estimates(self, probes: Sequence[int]) -> tuple[float, float]:
        """tr A and tr A^2 from some of the probes."""
        used = np.array(probes)
        others = np.array([np.delete(used, index) for index in range(len(used))])
        bases = np.linalg.qr(self.triangle.T[others].swapaxes(1, 2))[0]  # one for each probe, from all others
        seen = self.seen.T[used]
        # What the other probes do not see of each one, in Q; with what lies outside of Q, it is all of that.
        unseen = seen - np.einsum("pij,pkj,pk->pi", bases, bases, seen, optimize=True)
        left = self.n - len(used) + 1  # dimensions outside of the basis from the others
        outside = np.maximum(self.outside[used] + (unseen**2).sum(axis=1), np.finfo(np.float64).tiny)
        form = self.forms[used] + (unseen * self.crossed.T[used]).sum(axis=1)
        form += ((unseen @ self.inner) * unseen).sum(axis=1)
        length = self.lengths[used] + 2 * (unseen * self.mixed.T[used]).sum(axis=1)
        length += ((unseen @ self.gram) * unseen).sum(axis=1)
        trace = ((self.inner @ bases) * bases).sum(axis=(1, 2)) + left * form / outside
        square = ((self.gram @ bases) * bases).sum(axis=(1, 2)) + left * length / outside
        return float(trace.mean()), float(square.mean())


def check_symmetric(vectors: np.ndarray, images: np.ndarray, eps: float) -> None:
    """Raise `InputError` for a matrix A that is not symmetric, by x'Ay and y'Ax for several vectors."""
    forms = vectors.T @ images
    scale = float(np.linalg.norm(vectors, axis=0).max() * np.linalg.norm(images, axis=0).max())
    gap = float(np.abs(forms - forms.T).max())
    if gap > 100 * max(eps, np.finfo(np.float64).eps) * np.sqrt(len(vectors)) * scale:
        raise InputError(
            f"the operator is not symmetric: x'Ky and y'Kx differ by {gap / scale:.2g} of |x| |Ky|",
            allowed="a symmetric kernel",
            remedy="a cross kernel (x2=) has no trace of this kind; use singular values",
        )
