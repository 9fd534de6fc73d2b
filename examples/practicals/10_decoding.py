"""Decoding from a language model.

Source: practical Transformers. A small causal transformer learns to foretell the next character of a text that ships
with Python. Sampling, greedy choice, top-k, nucleus, k-th token and beam search are functions of its logits: the same
weights give the same tokens on every engine. (For the nucleus the source prints the position of its last token, counted
from 0, as the number of its tokens: one too few.) The sentences of GPT-2 are in `13_gpt2`.
"""

import contextlib
import io
from functools import cache

import numpy as np
from scipy.special import softmax
from scipy.stats import entropy

import udlbridge as ub
from udlbridge import backends
from udlbridge.udl import decoding, practicals

WINDOW, LENGTH = 12, 24
STRATEGIES = {
    "greedy": lambda generator: decoding.greedy,
    "sampling": lambda generator: lambda logits: decoding.sample(logits, generator),
    "top 5": lambda generator: lambda logits: decoding.top_k(logits, 5, generator),
    "nucleus 0.6": lambda generator: lambda logits: decoding.nucleus(logits, 0.6, generator),
    "second most likely": lambda generator: lambda logits: decoding.kth_most_likely(logits, 1),
}


@cache
def corpus():
    """The Zen of Python: windows of characters (n, WINDOW), what follows each (n,), the alphabet."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    text = "".join(this.d.get(character, character) for character in this.s)
    alphabet = "".join(sorted(set(text)))
    windows = np.lib.stride_tricks.sliding_window_view([alphabet.index(c) for c in text], WINDOW + 1)
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, -1]), alphabet


# Here the likeliest next characters do not lead to the likeliest continuation.
PROMPT = [corpus()[2].index(character) for character in "Special cases "]


@cache
def trained(backend):
    """Two blocks of causal attention and feed-forward layers, trained by the engine for 15 epochs."""
    x, y, alphabet = corpus()

    def block():
        attend = [ub.LayerNorm(32), ub.SelfAttention(32, 4, causal=True)]
        return ub.Residual(attend), ub.Residual([ub.LayerNorm(32), ub.Dense(32, 64, "gelu_tanh"), ub.Dense(64, 32)])

    start = [ub.Embedding(len(alphabet), 32), ub.SinusoidalPositions()]
    model = ub.Model([*start, *block(), *block(), ub.LayerNorm(32), ub.Take(-1), ub.Dense(32, len(alphabet))], seed=0)
    settings = {"optimizer": ("adam", {"lr": 0.005}), "epochs": 15, "batch_size": 32, "evaluate_every": 0}
    return ub.train(model, x, y, backend=backend, threads=1, progress=False, **settings)


def next_logits(model, backend):
    """From tokens (n, T) to the logits of what follows; the model sees the last WINDOW of them."""
    wide = model.astype("float64")
    return lambda tokens: ub.outputs(wide, tokens[:, -WINDOW:], backend=backend)


def continuations(logits):
    """The tokens of every strategy; those that draw start from the same seed."""
    found = {"beam search": list(decoding.beam_search(logits, PROMPT, beams=5, length=LENGTH)[0].tokens)}
    for name, strategy in STRATEGIES.items():
        found[name] = decoding.generate(logits, PROMPT, strategy(np.random.default_rng(0)), length=LENGTH)
    return found


def rows(backend=None):
    engine = backends.get(backend).name
    run = trained(engine)
    other = "torch" if engine == "reference" and "torch" in backends.usable() else "reference"
    here, there = (continuations(next_logits(run.model, e)) for e in (engine, other))
    logits = next_logits(run.model, engine)
    one, best = (decoding.beam_search(logits, PROMPT, beams=n, length=LENGTH)[0] for n in (1, 5))
    first = logits(np.array([PROMPT]))[0]
    last_position = np.argmax(np.cumsum(np.sort(softmax(first))[::-1]) > 0.95)
    return [
        practicals.below(
            "loss, half the entropy of the characters", entropy(np.bincount(corpus()[1])) / 2, run.losses[-20:].mean()
        ),
        *[
            practicals.closed_form(f"{name}: tokens that {other} gives otherwise", 0, np.not_equal(a, b).sum(), 0)
            for (name, a), b in zip(here.items(), there.values(), strict=True)
        ],
        practicals.closed_form(
            "one beam: tokens other than greedy", 0, np.not_equal(one.tokens, here["greedy"]).sum(), 0
        ),
        practicals.below("log probability, greedy - best of 5 beams", 0.0, one.log_probability - best.log_probability),
        practicals.closed_form("nucleus 0.95: tokens", last_position + 1, len(decoding.nucleus_tokens(first, 0.95)), 0),
    ]


def draw(backend=None):
    from matplotlib import pyplot

    run = trained(backends.get(backend).name)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 2.8))
    left.plot(run.losses)
    left.set(title="training", xlabel="step", ylabel="loss (nats per character)")
    found = continuations(next_logits(run.model, backend)).items()
    lines = [f"{name}: {''.join(corpus()[2][t] for t in tokens)!r}" for name, tokens in found]
    right.text(0, 1, "\n".join(lines), family="monospace", fontsize=8, va="top")
    right.axis("off")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
