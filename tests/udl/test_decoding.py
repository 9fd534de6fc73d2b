"""Decoding from logits: each rule on a distribution that one can check by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax

import udlbridge as ub
from udlbridge.errors import InputError, OptionError

LOGITS = np.log([0.1, 0.5, 0.15, 0.25])


def test_ranks() -> None:
    assert ub.decoding.greedy(LOGITS) == 1
    assert [ub.decoding.kth_most_likely(LOGITS, k) for k in range(4)] == [1, 3, 2, 0]
    assert ub.decoding.kth_most_likely(np.zeros(3), 1) == 1  # ties: the smaller number first


def test_sampling_follows_the_probabilities() -> None:
    generator = np.random.default_rng(0)
    drawn = [ub.decoding.sample(LOGITS, generator) for _ in range(4000)]
    assert stats.chisquare(np.bincount(drawn, minlength=4), 4000 * np.exp(LOGITS)).pvalue > 1e-4


def test_top_k_and_nucleus_draw_from_the_right_tokens() -> None:
    generator = np.random.default_rng(0)
    drawn = np.bincount([ub.decoding.top_k(LOGITS, 2, generator) for _ in range(3000)], minlength=4)
    assert drawn[[0, 2]].sum() == 0
    assert stats.chisquare(drawn[[1, 3]], [2000, 1000]).pvalue > 1e-4
    assert list(ub.decoding.nucleus_tokens(LOGITS, 0.4)) == [1]
    assert list(ub.decoding.nucleus_tokens(LOGITS, 0.7)) == [1, 3]
    assert list(ub.decoding.nucleus_tokens(LOGITS, 1.0)) == [1, 3, 2, 0]
    assert {ub.decoding.nucleus(LOGITS, 0.7, generator) for _ in range(100)} == {1, 3}


@given(st.integers(0, 1000), st.integers(1, 3))
def test_wide_beams_find_the_best_sequence(seed: int, length: int) -> None:
    table = np.random.default_rng(seed).standard_normal((3, 3))

    def next_logits(tokens: np.ndarray) -> np.ndarray:
        return table[tokens[:, -1]]

    def score(tokens: tuple[int, ...]) -> float:
        steps = zip((0, *tokens), tokens, strict=False)
        return float(sum(log_softmax(table[a])[b] for a, b in steps))

    beams = ub.decoding.beam_search(next_logits, [0], beams=27, length=length)
    best = max(product(range(3), repeat=length), key=score)
    assert beams[0].tokens == (0, *best)
    assert beams[0].log_probability == pytest.approx(score(best), rel=1e-12)
    assert len(beams) == 3**length
    one = ub.decoding.beam_search(next_logits, [0], beams=1, length=length)[0]
    assert list(one.tokens) == ub.decoding.generate(next_logits, [0], ub.decoding.greedy, length=length)


@pytest.mark.usefixtures("untyped")
def test_bad_settings_are_named() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(OptionError, match="k=4"):
        ub.decoding.kth_most_likely(LOGITS, 4)
    with pytest.raises(OptionError, match="k=0"):
        ub.decoding.top_k(LOGITS, 0, generator)
    with pytest.raises(OptionError, match="threshold=0"):
        ub.decoding.nucleus(LOGITS, 0, generator)
    with pytest.raises(InputError, match="logits of shape"):
        ub.decoding.greedy(np.zeros((2, 3)))
    with pytest.raises(OptionError, match="beams=0"):
        ub.decoding.beam_search(lambda t: t, [0], beams=0, length=1)
    with pytest.raises(OptionError, match=r"k=1\.5.*whole number"):
        ub.decoding.top_k(LOGITS, 1.5, generator)
    with pytest.raises(OptionError, match=r"np\.random\.default_rng"):
        ub.decoding.sample(LOGITS, 0)
    with pytest.raises(OptionError, match=r"length=2\.5"):
        ub.decoding.generate(lambda t: t, [0], ub.decoding.greedy, length=2.5)
    with pytest.raises(OptionError, match="threshold='all'"):
        ub.decoding.nucleus(LOGITS, "all", generator)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("bad", [[0.0, np.inf], [0.0, np.nan], [-np.inf, -np.inf], ["a", "b"]])
def test_logits_without_probabilities_are_refused(bad: list[float]) -> None:
    logits, generator = np.array(bad), np.random.default_rng(0)
    for choose in (
        lambda: ub.decoding.greedy(logits),
        lambda: ub.decoding.sample(logits, generator),
        lambda: ub.decoding.top_k(logits, 1, generator),
        lambda: ub.decoding.nucleus(logits, 0.5, generator),
        lambda: ub.decoding.beam_search(lambda tokens: logits[None], [0], beams=1, length=1),
    ):
        with pytest.raises(InputError, match="logits"):
            choose()


def test_impossible_tokens_are_never_chosen() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 1.0])
    assert list(ub.decoding.nucleus_tokens(logits, 1.0)) == [3, 1]

    class Last:
        """The largest number that a generator draws below 1."""

        def random(self) -> float:
            return np.nextafter(1.0, 0.0)

    class Generator(Last, np.random.Generator):
        pass

    largest = Generator(np.random.PCG64(0))
    assert ub.decoding.sample(logits, largest) == 3
    # Ten equal probabilities add up to less than 1 in floating point: what is drawn above is not the impossible one.
    ten = np.array([0.0] * 10 + [-np.inf])
    assert ub.decoding.sample(ten, largest) == 9
    assert ub.decoding.top_k(logits, 4, largest) == 1
    beams = ub.decoding.beam_search(lambda tokens: np.tile(logits, (len(tokens), 1)), [0], beams=9, length=1)
    assert [beam.tokens for beam in beams] == [(0, 3), (0, 1)]


def test_a_legacy_generator_draws_what_np_random_choice_draws() -> None:
    """As the practical has it: probabilities of all tokens in float32, the unwanted ones zero, np.random.choice."""
    rng = np.random.default_rng(4)
    for case in range(20):
        logits = (3 * rng.standard_normal(50)).astype(np.float32)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        falling = np.sort(p)[::-1]
        top = np.where(p < falling[9], 0, p)
        core = np.where(p < falling[np.argmax(np.cumsum(falling) > 0.4)], 0, p)
        choices = (
            (p, lambda draws, z=logits: ub.decoding.sample(z, draws)),
            (top, lambda draws, z=logits: ub.decoding.top_k(z, 10, draws)),
            (core, lambda draws, z=logits: ub.decoding.nucleus(z, 0.4, draws)),
        )
        for weights, choose in choices:
            np.random.seed(case)  # noqa: NPY002
            expected = [np.random.choice(50, 1, replace=False, p=weights / weights.sum())[0] for _ in range(5)]  # noqa: NPY002
            draws = np.random.RandomState(case)
            assert [choose(draws) for _ in range(5)] == expected


def test_beams_after_every_step() -> None:
    table = np.random.default_rng(2).standard_normal((4, 4))
    steps = list(ub.decoding.beam_steps(lambda tokens: table[tokens[:, -1]], [0], beams=3, length=4))
    assert [len(beams[0].tokens) for beams in steps] == [2, 3, 4, 5]
    assert steps[-1] == ub.decoding.beam_search(lambda tokens: table[tokens[:, -1]], [0], beams=3, length=4)
    p = np.exp(log_softmax(table[0]))
    assert [beam.probability for beam in steps[0]] == pytest.approx(sorted(p, reverse=True)[:3], rel=1e-12)
