"""Decoding GPT-2.

Source: practical Transformers. Seven sentences of GPT-2, by sampling, greedy choice, top-k, nucleus, the second and the
2001st most likely token, and beam search. GPT-2 becomes a `Model` by `ub.from_gpt2` and runs in every engine; tokens
are chosen as in `10_decoding`, and drawn from `RandomState(0)`, as the practical draws them after `set_seed(0)`.

The sentences are held where GPT-2's weights are at hand, and skipped with the reason where they are not. To have them:

    pip install "udlbridge[gpt2]"
    python -c "import transformers as t; [c.from_pretrained('gpt2') for c in (t.GPT2LMHeadModel, t.GPT2Tokenizer)]"

which downloads 0.5 GB once. Without them, a small network of GPT-2's layers with random weights is what the engines are
compared on; against `transformers` itself it is held by the tests. Top-k keeps k + 1 tokens, as the practical's hint
has it (`10_decoding`).
"""

from functools import cache

import numpy as np
from scipy.special import log_softmax

import udlbridge as ub
from udlbridge import backends
from udlbridge.udl import decoding, practicals

PROMPT, LENGTH, BEAMS = "The best thing about Bath is", 10, 5
SAYS = {
    "sampling": " that they don't even change or shrink anymore.",
    "greedy": " that it's a place where you can go to",
    "top-k, k = 10": " that you get to see all the beautiful faces of",
    "nucleus 0.2": " that it's not a city that has been around",
    "second most likely": " the way you get the most bang outta the",
    "2001st most likely": " mixed profits partnerships» buy generic+ Honda throttlecont",
    "beam search": " that it's a place where you don't have to",
}
CHOICES = {
    "sampling": lambda draws: lambda logits: decoding.sample(logits, draws),
    "greedy": lambda draws: decoding.greedy,
    "top-k, k = 10": lambda draws: lambda logits: decoding.top_k(logits, 11, draws),
    "nucleus 0.2": lambda draws: lambda logits: decoding.nucleus(logits, 0.2, draws),
    "second most likely": lambda draws: lambda logits: decoding.kth_most_likely(logits, 1),
    "2001st most likely": lambda draws: lambda logits: decoding.kth_most_likely(logits, 2000),
}


@cache
def pretrained():
    """GPT-2 as a `Model`, and its tokenizer; raises ImportError or OSError where it is not at hand."""
    from transformers import GPT2LMHeadModel, GPT2Tokenizer

    module = GPT2LMHeadModel.from_pretrained("gpt2", local_files_only=True).eval()
    return ub.from_gpt2(module), GPT2Tokenizer.from_pretrained("gpt2", local_files_only=True)


def next_logits(model, backend):
    return lambda tokens: ub.outputs(model, tokens, backend=backend)


@cache
def said(engine):
    """What GPT-2 says, by strategy; and its beams after every token."""
    model, tokenizer = pretrained()
    logits, start = next_logits(model, engine), tokenizer(PROMPT)["input_ids"]
    steps = list(decoding.beam_steps(logits, start, beams=BEAMS, length=LENGTH))
    found = {"beam search": list(steps[-1][0].tokens)}
    for name, choice in CHOICES.items():
        draws = np.random.RandomState(0)
        found[name] = decoding.generate(logits, start, choice(draws), length=LENGTH)
    return {name: tokenizer.decode(tokens[len(start) :]) for name, tokens in found.items()}, found, steps


def log_probabilities(logits, tokens, start):
    """Of every token from the position `start` on."""
    return [log_softmax(logits(np.array([tokens[:p]]))[0])[tokens[p]] for p in range(start, len(tokens))]


@cache
def small():
    """GPT-2's layers, few and narrow, with random weights; and a prompt."""
    model = ub.models.gpt2(vocabulary=97, length=40, width=24, heads=3, blocks=2, seed=1, dtype="float64")
    return model, [5, 17, 40, 3]


def small_rows(engine):
    """The logits of the small network, and of its continuations the log probabilities, as with another engine."""
    other = "torch" if engine == "reference" and "torch" in backends.usable() else "reference"
    model, prompt = small()
    tokens = np.random.default_rng(0).integers(0, 97, (4, 12))
    ours, theirs = (ub.outputs(model, tokens, backend=name) for name in (engine, other))
    found = [practicals.largest_gap("random weights: logits of the next token", ours, theirs, 1e-11)]
    best = [decoding.beam_search(next_logits(model, e), prompt, beams=BEAMS, length=8)[0] for e in (engine, other)]
    found.append(
        practicals.closed_form(
            "random weights: best beam's log probability", best[1].log_probability, best[0].log_probability, 1e-10
        )
    )
    for name in ("sampling", "greedy", "nucleus 0.2"):
        sums = []
        for logits in (next_logits(model, e) for e in (engine, other)):
            choose = CHOICES[name](np.random.RandomState(0))
            written = decoding.generate(logits, prompt, choose, length=8)
            sums.append(sum(log_probabilities(logits, written, len(prompt))))
        found.append(practicals.closed_form(f"random weights: {name}, log probability", sums[1], sums[0], 1e-10))
    return found


def rows(backend=None):
    engine = backends.get(backend).name
    try:
        here = said(engine)[0]
    except (ImportError, OSError) as error:
        reason = f"no transformers, or no weights here ({type(error).__name__})"
        return [
            *small_rows(engine),
            *(practicals.skipped(f"{name}: says{text!r}", reason) for name, text in SAYS.items()),
        ]
    return [
        *small_rows(engine),
        *(practicals.asserted(f"{name}: says{text!r}", 1, here[name] == text) for name, text in SAYS.items()),
    ]


def report(backend=None):
    """Where GPT-2 is at hand, its vocabulary, its sentences, and the beams after every token."""
    engine = backends.get(backend).name
    try:
        sentences, tokens, steps = said(engine)
    except (ImportError, OSError):
        return "GPT-2's weights are not at hand; the docstring of this practical says how to get them"
    model, tokenizer = pretrained()
    lines = [f"Number of tokens in dictionary = {tokenizer.vocab_size}"]
    draws = np.random.RandomState(1)
    some = [draws.randint(tokenizer.vocab_size) for _ in range(20)]
    lines += [f"Token: {index} {tokenizer.decode([index])}" for index in some]
    lines += [f"{name}: {PROMPT}{text}" for name, text in sentences.items()]
    logits, start = next_logits(model, engine), len(tokenizer(PROMPT)["input_ids"])
    for position in range(start, start + LENGTH):
        size = len(decoding.nucleus_tokens(logits(np.array([tokens["nucleus 0.2"][:position]]))[0], 0.2))
        lines.append(f"nucleus 0.2, token {position - start + 1}: choosing from {size} tokens")
    for step, beams in enumerate(steps, start=1):
        lines += [
            f"beam {k} after {step}: log probability {beam.log_probability:.3f}: {tokenizer.decode(beam.tokens)}"
            for k, beam in enumerate(beams)
        ]
    return "\n".join(lines)


def written(engine):
    """Which network it is, its logits, the length of the prompt, and what every strategy makes of it: tokens.

    GPT-2 where it is at hand, else the small network, whose vocabulary has no 2001st token.
    """
    try:
        tokens = said(engine)[1]
        model, tokenizer = pretrained()
        return "GPT-2", next_logits(model, engine), len(tokenizer(PROMPT)["input_ids"]), tokens
    except (ImportError, OSError):
        model, prompt = small()
        logits = next_logits(model, engine)
        found = {"beam search": list(decoding.beam_search(logits, prompt, beams=BEAMS, length=LENGTH)[0].tokens)}
        for name, choice in CHOICES.items():
            if name != "2001st most likely":
                found[name] = decoding.generate(logits, prompt, choice(np.random.RandomState(0)), length=LENGTH)
        return "a small network with random weights", logits, len(prompt), found


def draw(backend=None):
    from matplotlib import pyplot

    engine = backends.get(backend).name
    which, logits, start, found = written(engine)
    figure, axis = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for (name, tokens), marker in zip(found.items(), "os^vDPX", strict=False):
        sums = np.cumsum(log_probabilities(logits, tokens, start))
        axis.plot(range(1, len(sums) + 1), sums, marker=marker, ms=5, mfc="none", label=name)
    axis.set(
        xlabel="token", ylabel="log probability so far (nats)", title=f"{which}: what each strategy writes, {engine}"
    )
    axis.set_xticks(range(1, LENGTH + 1))
    figure.legend(loc="outside right center")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
