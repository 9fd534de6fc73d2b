"""Decoding from a language model.

Source: practical Transformers. A small causal transformer learns to foretell the next character of a text that ships
with Python. Sampling, greedy choice, top-k, nucleus, k-th token and beam search are functions of its logits: the same
weights give the same tokens on every engine. Numbers are drawn as the practical draws them, by `np.random.choice` over
the whole vocabulary after `set_seed(0)`: that is what a legacy `RandomState(0)` means here. The sentences of GPT-2 are
in `13_gpt2`.

Three slips of the source. For the nucleus it prints the position of the last token, counted from 0, as the number of
its tokens: one too few. Its top-k asks for the probability at the k-th place, counted from 0, and keeps what is not
below it: k + 1 tokens. Its beam search begins with `input_tokens['log_prob'] = 0`, on a global of that name, and not on
the tokens that it is given; called with any others it would fail.
"""

import contextlib
import io
from functools import cache

import numpy as np
from scipy.special import log_softmax, softmax

import udlbridge as ub
from udlbridge import backends
from udlbridge.udl import decoding, practicals

WINDOW, LENGTH = 12, 24
STRATEGIES = {
    "greedy": lambda draws: decoding.greedy,
    "sampling": lambda draws: lambda logits: decoding.sample(logits, draws),
    "top 3": lambda draws: lambda logits: decoding.top_k(logits, 3, draws),
    "top 11": lambda draws: lambda logits: decoding.top_k(logits, 11, draws),
    "nucleus 0.2": lambda draws: lambda logits: decoding.nucleus(logits, 0.2, draws),
    "nucleus 0.6": lambda draws: lambda logits: decoding.nucleus(logits, 0.6, draws),
    "nucleus 0.95": lambda draws: lambda logits: decoding.nucleus(logits, 0.95, draws),
    "second most likely": lambda draws: lambda logits: decoding.kth_most_likely(logits, 1),
    "tenth most likely": lambda draws: lambda logits: decoding.kth_most_likely(logits, 9),
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
    """Two blocks of causal attention and feed-forward layers, trained by the engine for 15 epochs, in float64.

    In float32 rounding would grow with every step, and every engine would end at another network.
    """
    x, y, alphabet = corpus()

    def block():
        attend = [ub.LayerNorm(32), ub.SelfAttention(32, 4, causal=True)]
        return ub.Residual(attend), ub.Residual([ub.LayerNorm(32), ub.Dense(32, 64, "gelu_tanh"), ub.Dense(64, 32)])

    start = [ub.Embedding(len(alphabet), 32), ub.SinusoidalPositions()]
    layers = [*start, *block(), *block(), ub.LayerNorm(32), ub.Take(-1), ub.Dense(32, len(alphabet))]
    model = ub.Model(layers, seed=0, dtype="float64")
    settings = {"optimizer": ("adam", {"lr": 0.005}), "epochs": 15, "batch_size": 32, "evaluate_every": 0}
    return ub.train(model, x, y, backend=backend, threads=1, progress=False, **settings)


def next_logits(model, backend):
    """From tokens (n, T) to the logits of what follows; the model sees the last WINDOW of them."""
    return lambda tokens: ub.outputs(model, tokens[:, -WINDOW:], backend=backend)


def continuations(logits):
    """The tokens of every strategy; those that draw start from the practical's seed."""
    found = {"beam search": list(decoding.beam_search(logits, PROMPT, beams=5, length=LENGTH)[0].tokens)}
    for name, strategy in STRATEGIES.items():
        draws = np.random.RandomState(0)
        found[name] = decoding.generate(logits, PROMPT, strategy(draws), length=LENGTH)
    return found


def log_probability(logits, tokens):
    """Of what follows the prompt."""
    positions = range(len(PROMPT), len(tokens))
    return sum(log_softmax(logits(np.array([tokens[:p]]))[0])[tokens[p]] for p in positions)


def rows(backend=None):
    engine = backends.get(backend).name
    run = trained(engine)
    other = "torch" if engine == "reference" and "torch" in backends.usable() else "reference"
    logits, peer = (next_logits(run.model, e) for e in (engine, other))
    here, there = continuations(logits), continuations(peer)
    x, y, _ = corpus()
    loss, same = (ub.loss_gradient(run.model, x, y, backend=e)[0] for e in (engine, other))
    beams = decoding.beam_search(logits, PROMPT, beams=5, length=LENGTH)
    sums = np.array([log_probability(logits, beam.tokens) for beam in beams])
    first, again = (f(np.array([PROMPT]))[0] for f in (logits, peer))
    nucleus = decoding.nucleus_tokens(first, 0.95)
    gain, gained = (
        log_probability(f, tokens["beam search"]) - log_probability(f, tokens["greedy"])
        for f, tokens in ((logits, here), (peer, there))
    )
    return [
        practicals.closed_form("loss of the trained network, as with another engine", same, loss, 1e-11),
        *[
            practicals.closed_form(
                f"{name}: log probability", log_probability(peer, there[name]), log_probability(logits, tokens), 1e-9
            )
            for name, tokens in here.items()
        ],
        practicals.closed_form("beam search: log probability beyond greedy", gained, gain, 1e-8),
        practicals.largest_gap(
            "log probabilities of all five beams", np.array([b.log_probability for b in beams]), sums
        ),
        practicals.closed_form(
            "nucleus 0.95: probability of its tokens",
            softmax(again)[nucleus].sum(),
            softmax(first)[nucleus].sum(),
            1e-9,
        ),
    ]


def report(backend=None):
    """The vocabulary, what every strategy says, from how many tokens the nucleus chooses, and the beams."""
    engine = backends.get(backend).name
    logits, alphabet = next_logits(trained(engine).model, engine), corpus()[2]
    lines = [f"Number of tokens in dictionary = {len(alphabet)}"]
    for name, tokens in continuations(logits).items():
        lines.append(f"{name}: {''.join(alphabet[t] for t in tokens)!r}")
        if name.startswith("nucleus"):
            threshold, positions = float(name.split()[1]), range(len(PROMPT), len(tokens))
            sizes = [len(decoding.nucleus_tokens(logits(np.array([tokens[:p]]))[0], threshold)) for p in positions]
            lines.append(f"    choosing from {', '.join(map(str, sizes))} tokens")
    for step, beams in enumerate(decoding.beam_steps(logits, PROMPT, beams=5, length=LENGTH), start=1):
        if step in (1, 2, LENGTH):
            lines.append(f"beams after {step} tokens:")
            for beam in beams:
                text = "".join(alphabet[t] for t in beam.tokens)
                lines.append(f"    {beam.log_probability:7.3f} (probability {beam.probability:.2e}): {text!r}")
    return "\n".join(lines)


def draw(backend=None):
    from matplotlib import pyplot

    engine = backends.get(backend).name
    run = trained(engine)
    logits, alphabet = next_logits(run.model, engine), corpus()[2]
    found = continuations(logits)
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    left.plot(run.losses)
    left.set(title=f"training, {engine}", xlabel="step", ylabel="loss (nats per character)")
    p = softmax(logits(np.array([PROMPT]))[0])
    best = np.argsort(-p)[:10]
    middle.bar([repr(alphabet[t])[1:-1].replace(" ", "\u2423") for t in best], p[best], color="#0072b2")
    middle.set(title="the next character, ten most likely", xlabel="character", ylabel="probability")
    surprise = {name: -log_probability(logits, tokens) / LENGTH for name, tokens in found.items()}
    names = sorted(surprise, key=surprise.get, reverse=True)  # the likeliest stands at the top
    right.barh(names, [surprise[name] for name in names], color="#0072b2")
    right.set(title="how unlikely is what each strategy says?", xlabel="nats per character")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
