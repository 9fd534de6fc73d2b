"""Choosing tokens from a language model's logits: greedy, sampling, top-k, nucleus, k-th token, beam search.

Every function sees logits and, where it draws, a NumPy generator. So engines that give the same logits give the same
tokens.

Source: Holtzman et al. (2020) for nucleus sampling; Fan, Lewis, Dauphin (2018) for top-k sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, softmax

from udlbridge.errors import InputError, OptionError

NextLogits = Callable[[np.ndarray], np.ndarray]
"""From token sequences (n, T) to the logits of what comes next (n, V)."""


def _checked(logits: np.ndarray) -> np.ndarray:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or np.isnan(values).any():
        raise InputError(
            f"logits of shape {values.shape}", allowed="one vector (V,) without NaN", remedy="take the last position"
        )
    return values


def ranking(logits: np.ndarray) -> np.ndarray:
    """Tokens from the most to the least likely (V,); of equal ones the smaller number comes first."""
    return np.argsort(-_checked(logits), kind="stable")


def greedy(logits: np.ndarray) -> int:
    """The most likely token."""
    return int(ranking(logits)[0])


def kth_most_likely(logits: np.ndarray, k: int) -> int:
    """The token of rank `k`, counted from 0: 0 is the most likely one.

    Raises:
        OptionError: there is no such rank.
    """
    order = ranking(logits)
    if not 0 <= k < len(order):
        raise OptionError(f"k={k}", allowed=f"0 to {len(order) - 1}", remedy="choose a smaller rank")
    return int(order[k])


def sample(logits: np.ndarray, generator: np.random.Generator) -> int:
    """A token drawn with its probability softmax(logits)."""
    return _draw(np.arange(len(_checked(logits))), logits, generator)


def top_k(logits: np.ndarray, k: int, generator: np.random.Generator) -> int:
    """A token drawn from the `k` most likely ones, in proportion to their probabilities.

    Raises:
        OptionError: `k` is not between 1 and V.
    """
    order = ranking(logits)
    if not 1 <= k <= len(order):
        raise OptionError(f"k={k}", allowed=f"1 to {len(order)}", remedy="choose another number of tokens")
    return _draw(order[:k], logits, generator)


def nucleus_tokens(logits: np.ndarray, threshold: float) -> np.ndarray:
    """The fewest tokens, most likely first, whose probabilities together exceed `threshold`.

    Raises:
        OptionError: `threshold` is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise OptionError(
            f"threshold={threshold}", allowed="above 0, at most 1", remedy="choose a share of probability"
        )
    order = ranking(logits)
    reached = np.cumsum(softmax(_checked(logits))[order]) > threshold
    return order[: int(np.argmax(reached)) + 1] if reached.any() else order


def nucleus(logits: np.ndarray, threshold: float, generator: np.random.Generator) -> int:
    """A token drawn from `nucleus_tokens`, in proportion to their probabilities."""
    return _draw(nucleus_tokens(logits, threshold), logits, generator)


def _draw(tokens: np.ndarray, logits: np.ndarray, generator: np.random.Generator) -> int:
    """One of `tokens` by inversion of the distribution function: one uniform number, whatever the engine."""
    levels = np.cumsum(softmax(_checked(logits)[tokens]))
    return int(tokens[min(int(np.searchsorted(levels, generator.random(), side="right")), len(tokens) - 1)])


def generate(
    next_logits: NextLogits, prompt: Sequence[int], choose: Callable[[np.ndarray], int], *, length: int
) -> list[int]:
    """`prompt` continued by `length` tokens, each chosen by `choose` from the logits of the sequence so far."""
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(choose(next_logits(np.array([tokens]))[0]))
    return tokens


@dataclass(frozen=True)
class Beam:
    """A sequence of tokens (with the prompt) and the log probability of its continuation."""

    tokens: tuple[int, ...]
    log_probability: float


def beam_search(next_logits: NextLogits, prompt: Sequence[int], *, beams: int, length: int) -> list[Beam]:
    """The `beams` most likely continuations of `prompt`, as far as keeping that many at every step can find them.

    Args:
        next_logits: the model; it is asked once a step, with all beams as one batch.
        prompt: the tokens to start from.
        beams: how many sequences are kept; 1 is greedy decoding.
        length: number of tokens to add.

    Returns:
        Beams, most likely first; fewer than `beams` only if there are not that many sequences.

    Raises:
        OptionError: no beams, or no tokens to add.
    """
    if beams < 1 or length < 1:
        raise OptionError(f"beams={beams}, length={length}", allowed="at least 1 each", remedy="correct them")
    kept = [Beam(tuple(prompt), 0.0)]
    for _ in range(length):
        scores: Float[np.ndarray, "n v"] = log_softmax(
            np.asarray(next_logits(np.array([beam.tokens for beam in kept])), dtype=np.float64), axis=-1
        )
        longer = [
            Beam((*beam.tokens, int(token)), beam.log_probability + float(row[token]))
            for beam, row in zip(kept, scores, strict=True)
            for token in ranking(row)[:beams]
        ]
        kept = sorted(longer, key=lambda beam: -beam.log_probability)[:beams]
    return kept
