"""Which form of a layer's share of the kernel costs less: said once, from shapes alone, for every engine.

A layer whose parameters enter as z_t = W a_t + b at T positions t (one for Dense on a vector, the windows of a
convolution, the tokens of a sequence) has the per-sample gradient G = sum_t d_t a_t', with errors d_t = d f / d z_t.
Its share of the kernel has two exact forms:

- "pairs": sum_{t,s} (a_it . a_js) (d_it . d_js), which never forms a gradient;
- "gradients": G_i . G_j, one matrix product of per-sample gradients.

The product of position-summed Gram matrices, (sum a_it . a_js) (sum d_it . d_js), is neither: it is wrong for T > 1.
A table of rows for tokens (Embedding) is such a map of one-hot vectors, whose products are 1 where two tokens are equal
and else 0. Its share of the kernel is the sum of d_it . d_js over pairs of positions with equal tokens, "tokens": the
errors are added up where a sample has a token several times, and then multiplied for the tokens that two samples share.

Source: Novak, Sohl-Dickstein, Schoenholz (2022), sections 3.2 and 3.3, where "pairs" and "gradients" are called
structured derivatives and Jacobian contraction.
"""

from __future__ import annotations

from math import prod
from typing import Literal

from udlbridge.backends.reduction import Reduction

AffineRule = Literal["pairs", "gradients"]
LookupRule = Literal["tokens", "gradients"]

ELEMENTWISE = 4
"""What one elementwise multiply-add on a matrix in memory costs, in multiply-adds of a matrix product."""


def pairs_cost(positions: int, inputs: int, outputs: int, reduction: Reduction) -> int:
    """Multiply-adds of "pairs" for one pair of samples: T^2 (p + q K + elementwise), K one-output products."""
    errors = outputs * _products(reduction)
    return positions**2 * (inputs + errors + ELEMENTWISE * prod(reduction.trailing))


def gradients_cost(inputs: int, outputs: int, reduction: Reduction) -> int:
    """Multiply-adds of "gradients" for one pair of samples: p q K."""
    return inputs * outputs * _products(reduction)


def affine_rule(positions: int, inputs: int, outputs: int, groups: int, reduction: Reduction) -> AffineRule:
    """The cheaper form for a layer with T `positions`, p `inputs` and q `outputs` in each of its groups.

    Grouped layers take "gradients": the fewer inputs a group has, the smaller its gradients are.
    """
    if groups > 1:
        return "gradients"
    pairs = pairs_cost(positions, inputs, outputs, reduction)
    return "pairs" if pairs < gradients_cost(inputs, outputs, reduction) else "gradients"


SHORTEST_STRIP = 64
"""Rows of a matrix product below which it is slower than what a shorter strip would save."""


def strip_height(rows: int, positions: int = 1) -> int:
    """Rows of a strip of a square of which only what lies below the diagonal is needed.

    Each is as many rows of a matrix product as it has `positions`.
    """
    shortest = max(1, SHORTEST_STRIP // positions, rows // 8)
    # Of one height: a short one at the end would be as slow as those that are too short.
    return -(-rows // max(1, round(rows / shortest)))


def entries_below(rows: int, height: int) -> int:
    """Entries of a square that strips of that height have, each as long as its last row is below the diagonal."""
    ends = [min(start + height, rows) for start in range(0, rows, height)]
    return sum((end - start) * end for start, end in zip(range(0, rows, height), ends, strict=True))


def tile_rule(
    positions: int,
    inputs: int,
    outputs: int,
    tile: tuple[int, int],
    formed: int,
    reduction: Reduction,
    *,
    lower: bool = False,
) -> AffineRule:
    """The cheaper form for one tile of a layer that takes "gradients", where these are formed for each tile.

    `tile`: its rows and columns, of which only what lies below the diagonal is needed if `lower`. `formed`: how many
    samples they are together. Forming the gradients of a sample takes T p q, and writing and reading them, so that of
    few samples the pairs may cost less all the same.
    """
    rows, columns = tile
    paired = entries_below(rows, strip_height(rows, positions)) if lower else rows * columns
    multiplied = entries_below(rows, strip_height(rows)) if lower else rows * columns
    pairs = paired * pairs_cost(positions, inputs, outputs, reduction)
    forming = formed * reduction.n_cotangents * (positions + ELEMENTWISE) * inputs * outputs
    return "pairs" if pairs < forming + multiplied * gradients_cost(inputs, outputs, reduction) else "gradients"


def tokens_cost(positions: int, rows: int, outputs: int, reduction: Reduction) -> int:
    """Multiply-adds of "tokens" for one pair of samples, at most: they share min(T, V) of V `rows`."""
    products = outputs * _products(reduction)
    return min(positions, rows) * (products + ELEMENTWISE * prod(reduction.trailing))


def lookup_rule(positions: int, rows: int, outputs: int, reduction: Reduction) -> LookupRule:
    """The cheaper form for a table of V `rows` of q `outputs`, looked up at T `positions`."""
    tokens = tokens_cost(positions, rows, outputs, reduction)
    return "tokens" if tokens < gradients_cost(rows, outputs, reduction) else "gradients"


def _products(reduction: Reduction) -> int:
    """How many inner products over parameters a pair of samples needs: 1, O or O^2."""
    return reduction.n_cotangents**2 if reduction.name == "full" else reduction.n_cotangents
