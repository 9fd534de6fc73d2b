"""Decoding GPT-2.

Source: practical Transformers. Four of its sentences need no chance: by beam search, by greedy choice, and with the
second and the 2001st most likely token at every place. They are held where `transformers` and the weights of GPT-2 are
at hand, and skipped with the reason where they are not. GPT-2 runs in torch alone; the choice of tokens is this
package's, as in `10_decoding`.
"""

from functools import cache

from udlbridge.udl import decoding, practicals

PROMPT = "The best thing about Bath is"
SAYS = {
    "beam search": " that it's a place where you don't have to",
    "greedy": " that it's a place where you can go to",
    "second most likely": " the way you get the most bang outta the",
    "2001st most likely": " mixed profits partnerships» buy generic+ Honda throttlecont",
}
RANKS = {"greedy": 0, "second most likely": 1, "2001st most likely": 2000}


@cache
def said():
    """What GPT-2 says here, by strategy; raises ImportError or OSError where it is not at hand."""
    import torch
    from transformers import GPT2LMHeadModel, GPT2Tokenizer

    model = GPT2LMHeadModel.from_pretrained("gpt2", local_files_only=True).eval()
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2", local_files_only=True)

    @torch.no_grad()
    def logits(tokens):
        return model(torch.from_numpy(tokens)).logits[:, -1].numpy()

    start = tokenizer(PROMPT)["input_ids"]
    found = {"beam search": decoding.beam_search(logits, start, beams=5, length=10)[0].tokens}
    for name, rank in RANKS.items():
        found[name] = decoding.generate(logits, start, lambda z, k=rank: decoding.kth_most_likely(z, k), length=10)
    return {name: tokenizer.decode(tokens[len(start) :]) for name, tokens in found.items()}


def rows(backend=None):
    try:
        here = said()
    except (ImportError, OSError) as error:
        return [
            practicals.skipped(f"GPT-2, {name}", f"no transformers, or no weights here ({type(error).__name__})")
            for name in SAYS
        ]
    return [practicals.asserted(f"{name}: says{text!r}", 1, here[name] == text) for name, text in SAYS.items()]


def draw(backend=None):
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(11, 2.2))
    axis.axis("off")
    verdicts = ["skipped here" if row.origin == practicals.SKIPPED else str(row.ok) for row in rows(backend)]
    for line, ((name, text), verdict) in enumerate(zip(SAYS.items(), verdicts, strict=True)):
        axis.text(0, 0.75 - 0.22 * line, f"{name:<20}{text}  [{verdict}]", family="monospace", fontsize=9)
    axis.set_title(f"{PROMPT} ...", loc="left")
    return figure


if __name__ == "__main__":
    practicals.main(__file__, __doc__)
