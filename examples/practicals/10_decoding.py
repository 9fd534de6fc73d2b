"""Decoding from a language model.

Source: practical Transformers. A small causal transformer learns to foretell the next character of a text that ships
with Python. Sampling, greedy choice, top-k, nucleus, k-th token and beam search are functions of its logits: the same
weights give the same tokens on every engine. GPT-2 is decoded too, where `transformers` and its weights are at hand.
"""

import contextlib
import io
from functools import cache

import numpy as np
from scipy.stats import entropy

import udlbridge as ub
from udlbridge import backends, decoding, practicals

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


PROMPT = [corpus()[2].index(character) for character in "Beautiful is "]


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
    return ub.train(model, x, y, backend=backend, progress=False, **settings)


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


def gpt2():
    """The source's results without chance, from GPT-2 itself; or why they cannot be had."""
    try:
        import torch
        from transformers import GPT2LMHeadModel, GPT2Tokenizer

        model = GPT2LMHeadModel.from_pretrained("gpt2", local_files_only=True).eval()
        tokenizer = GPT2Tokenizer.from_pretrained("gpt2", local_files_only=True)
    except (ImportError, OSError) as error:
        return [practicals.skipped("GPT-2", f"no transformers, or no weights on this machine ({type(error).__name__})")]

    @torch.no_grad()
    def logits(tokens):
        return model(torch.from_numpy(tokens)).logits[:, -1].numpy()

    start = tokenizer("The best thing about Bath is")["input_ids"]
    greedy = decoding.generate(logits, start, decoding.greedy, length=10)
    beam = decoding.beam_search(logits, start, beams=5, length=10)[0].tokens
    endings = (" that it's a place where you can go to", " that it's a place where you don't have to")
    return [
        practicals.closed_form(f"GPT-2 says {end!r}", 1, tokenizer.decode(tokens[len(start) :]) == end, 0)
        for tokens, end in zip((greedy, beam), endings, strict=True)
    ]


def rows(backend=None):
    engine = backends.get(backend).name
    run = trained(engine)
    other = "torch" if engine == "reference" and "torch" in backends.usable() else "reference"
    here, there = (continuations(next_logits(run.model, e)) for e in (engine, other))
    logits = next_logits(run.model, engine)
    one, best = (decoding.beam_search(logits, PROMPT, beams=n, length=LENGTH)[0] for n in (1, 5))
    alone = np.not_equal(one.tokens, here["greedy"]).sum()
    return [
        practicals.below(
            "loss, half the entropy of the characters", entropy(np.bincount(corpus()[1])) / 2, run.losses[-20:].mean()
        ),
        *[
            practicals.closed_form(f"{name}: tokens that {other} gives otherwise", 0, np.not_equal(a, b).sum(), 0)
            for (name, a), b in zip(here.items(), there.values(), strict=True)
        ],
        practicals.closed_form("one beam: tokens other than greedy", 0, alone, 0),
        practicals.below("log probability, greedy - best of 5 beams", 1e-9, one.log_probability - best.log_probability),
        *gpt2(),
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
