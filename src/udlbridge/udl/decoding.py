"""Choosing tokens from a language model's logits: greedy, sampling, top-k, nucleus, k-th token, beam search.

Every function sees logits and, where it draws, a NumPy generator. So engines that give the same logits give the same
tokens. A `Generator` draws by one uniform number among the tokens in order of their probability. A legacy `RandomState`
draws as programs do that call `np.random.choice` with the probabilities of all tokens, in their own order and dtype:
`RandomState(0)` then gives the tokens that they draw after `np.random.seed(0)`.

Source: Holtzman et al. (2020) for nucleus sampling; Fan, Lewis, Dauphin (2018) for top-k sampling.

Examples:
    >>> ub.decoding.greedy(np.array([0.1, 2.0, -1.0]))
    1
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from udlbridge.arrays import as_array
from udlbridge.errors import InputError, OptionError
from udlbridge.options import checked_count, checked_positive
from udlbridge.texts import completion, kind_of

__all__ = [
    "Beam",
    "beam_search",
    "beam_steps",
    "generate",
    "greedy",
    "kth_most_likely",
    "nucleus",
    "nucleus_tokens",
    "ranking",
    "sample",
    "top_k",
]
__dir__ = completion(__all__)

Draws = np.random.Generator | np.random.RandomState
"""Where random numbers come from."""

NextLogits = Callable[[np.ndarray], np.ndarray]
"""From token sequences (n, T) to the logits of what comes next (n, V)."""


def _checked(logits: np.ndarray) -> np.ndarray:
    values = as_array(logits, "logits", wanted=np.float64)
    if values.dtype.kind not in "biuf" or values.ndim != 1 or values.size == 0:
        raise InputError(
            f"logits of shape {values.shape} and dtype {values.dtype}",
            allowed="one vector (V,) of real numbers",
            remedy="take the last position",
        )
    if np.isnan(values).any() or np.isposinf(values).any() or np.isneginf(values).all():
        raise InputError(
            "logits that are NaN, +inf or all -inf",
            allowed="finite numbers, and -inf for tokens that are impossible; one token has to be possible",
            remedy="check the model",
        )
    return values.astype(np.float64)


def ranking(logits: np.ndarray) -> np.ndarray:
    """Tokens from the most to the least likely (V,); of equal ones the smaller number comes first.

    Raises:
        InputError: not one vector of logits, or logits that are NaN, +inf or all -inf.
    """
    return np.argsort(-_checked(logits), kind="stable")


def greedy(logits: np.ndarray) -> int:
    """The most likely token. Raises as `ranking`."""
    return int(ranking(logits)[0])


def kth_most_likely(logits: np.ndarray, k: int) -> int:
    """The token of rank `k`, counted from 0: 0 is the most likely one.

    Raises:
        OptionError: there is no such rank.
        InputError: as `ranking`.
    """
    order = ranking(logits)
    return int(order[checked_count("k", k, 0, len(order) - 1)])


def sample(logits: np.ndarray, generator: Draws) -> int:
    """A token drawn with its probability softmax(logits).

    Raises:
        InputError: as `ranking`.
        OptionError: `generator` is neither a Generator nor a RandomState.
    """
    return _draw(np.arange(len(_checked(logits))), logits, generator)


def top_k(logits: np.ndarray, k: int, generator: Draws) -> int:
    """A token drawn from the `k` most likely ones, in proportion to their probabilities.

    Raises:
        OptionError: `k` is not between 1 and V, or `generator` is neither a Generator nor a RandomState.
        InputError: as `ranking`.
    """
    order = ranking(logits)
    return _draw(order[: checked_count("k", k, 1, len(order))], logits, generator)


def nucleus_tokens(logits: np.ndarray, threshold: float) -> np.ndarray:
    """The fewest tokens, most likely first, whose probabilities together exceed `threshold`; for 1 all possible ones.

    Raises:
        OptionError: `threshold` is not in (0, 1].
        InputError: as `ranking`.
    """
    if checked_positive("threshold", threshold) > 1:
        raise OptionError(
            f"threshold={threshold}", allowed="above 0, at most 1", remedy="choose a share of probability"
        )
    order = ranking(logits)
    probabilities = softmax(_checked(logits))[order]
    order = order[probabilities > 0]
    reached = np.cumsum(probabilities)[: len(order)] > threshold
    return order[: int(np.argmax(reached)) + 1] if threshold < 1 and reached.any() else order


def nucleus(logits: np.ndarray, threshold: float, generator: Draws) -> int:
    """A token drawn from `nucleus_tokens`, in proportion to their probabilities. Raises as these and as `sample`."""
    return _draw(nucleus_tokens(logits, threshold), logits, generator)


def _draw(tokens: np.ndarray, logits: np.ndarray, generator: Draws) -> int:
    """One of `tokens` by inversion of the distribution function: one uniform number, whatever the engine.

    `tokens` have one that is possible, as the most likely one is among them.
    """
    if isinstance(generator, np.random.RandomState):
        return _drawn_as_choice(tokens, logits, generator)
    if not isinstance(generator, np.random.Generator):
        raise OptionError(
            f"{kind_of(generator)} as the generator",
            allowed="a numpy.random.Generator, or a RandomState to follow programs that use np.random.choice",
            remedy="np.random.default_rng(0)",
        )
    probabilities = softmax(_checked(logits)[tokens])
    possible = np.flatnonzero(probabilities)
    levels = np.cumsum(probabilities[possible])
    # The levels may end a rounding error below 1, and the number drawn between that and 1.
    index = min(int(np.searchsorted(levels, generator.random(), side="right")), len(possible) - 1)
    return int(tokens[possible[index]])


def _drawn_as_choice(tokens: np.ndarray, logits: np.ndarray, generator: np.random.RandomState) -> int:
    """One of `tokens` as np.random.choice draws it from all, with the probabilities of the others set to zero."""
    given = as_array(logits, "logits")
    values = given if given.dtype in (np.float32, np.float64) else _checked(given)
    probabilities = np.zeros_like(values)
    probabilities[tokens] = softmax(values)[tokens]
    probabilities /= probabilities.sum()
    return int(generator.choice(len(probabilities), 1, replace=False, p=probabilities)[0])


def generate(
    next_logits: NextLogits, prompt: Sequence[int], choose: Callable[[np.ndarray], int], *, length: int
) -> list[int]:
    """`prompt` continued by `length` tokens, each chosen by `choose` from the logits of the sequence so far.

    Raises:
        OptionError: a `length` that is not a whole number from 0 on.
    """
    tokens = list(prompt)
    for _ in range(checked_count("length", length, 0)):
        tokens.append(choose(next_logits(np.array([tokens]))[0]))
    return tokens


@dataclass(frozen=True)
class Beam:
    """A sequence of tokens (with the prompt) and the log probability of its continuation."""

    tokens: tuple[int, ...]
    log_probability: float

    @property
    def probability(self) -> float:
        """Of the continuation, given the prompt."""
        return math.exp(self.log_probability)


def beam_search(next_logits: NextLogits, prompt: Sequence[int], *, beams: int, length: int) -> list[Beam]:
    """The `beams` most likely continuations of `prompt`, as far as keeping that many at every step can find them.

    Args:
        next_logits: the model; it is asked once a step, with all beams as one batch.
        prompt: the tokens to start from.
        beams: how many sequences are kept; 1 is greedy decoding.
        length: number of tokens to add.

    Returns:
        Beams, most likely first; fewer than `beams` only if there are not that many possible sequences.

    Raises:
        OptionError: no beams, or no tokens to add.
        InputError: logits that are NaN, +inf or all -inf.
    """
    return deque(beam_steps(next_logits, prompt, beams=beams, length=length), maxlen=1).pop()


def beam_steps(next_logits: NextLogits, prompt: Sequence[int], *, beams: int, length: int) -> Iterator[list[Beam]]:
    """The beams of `beam_search` after every token that is added, most likely first. Arguments and errors as there."""
    beams, length = checked_count("beams", beams, 1), checked_count("length", length, 1)
    best = [Beam(tuple(prompt), 0.0)]
    for _ in range(length):
        scores = [log_softmax(_checked(row)) for row in next_logits(np.array([beam.tokens for beam in best]))]
        longer = [
            Beam((*beam.tokens, int(token)), beam.log_probability + float(row[token]))
            for beam, row in zip(best, scores, strict=True)
            for token in ranking(row)[:beams]
            if row[token] > -np.inf
        ]
        best = sorted(longer, key=lambda beam: -beam.log_probability)[:beams]
        yield best
