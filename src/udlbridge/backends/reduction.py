"""The reductions of the full kernel Theta (n, m, O, O): what `outputs=` means, said once.

Peers differ here by a factor O: neural-tangents divides the trace by O, the PyTorch tutorial sums it, the Flux
notebook takes one output. So the choice has a name and is always explicit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from udlbridge.errors import OutputsError
from udlbridge.options import brief, whole
from udlbridge.texts import nearest
from udlbridge.words import OutputsWord

REDUCTIONS: dict[str, str] = {
    "trace": "sum_a Theta[:, :, a, a]",
    "mean": "trace / O",
    "sum": "sum_ab Theta[:, :, a, b]",
    "diagonal": "Theta[:, :, a, a]",
    "full": "Theta",
}

Outputs = int | OutputsWord


@dataclass(frozen=True)
class Reduction:
    """A checked `outputs=`: `name` is one of `REDUCTIONS` or "one"; `index` is the output of "one", else -1."""

    name: OutputsWord | Literal["one"]
    index: int
    n_outputs: int

    @property
    def trailing(self) -> tuple[int, ...]:
        """The axes after (n, m): () or (O,) or (O, O)."""
        if self.name == "diagonal":
            return (self.n_outputs,)
        return (self.n_outputs, self.n_outputs) if self.name == "full" else ()

    @property
    def n_cotangents(self) -> int:
        """How many backward passes a sample needs: 1 for one output or their sum, else O."""
        return 1 if self.name in ("one", "sum") else self.n_outputs

    @property
    def scale(self) -> float:
        """What the sum over outputs is multiplied by: 1/O for "mean", else 1."""
        return 1.0 / self.n_outputs if self.name == "mean" else 1.0

    @property
    def outputs(self) -> Outputs:
        """As the user wrote it."""
        return self.index if self.name == "one" else self.name


def checked_reduction(outputs: object, n_outputs: int) -> Reduction:
    """The checked form of `outputs` for a network with `n_outputs` outputs.

    Raises:
        OutputsError: unknown name, or an index outside 0 ... n_outputs - 1.
    """
    allowed = f"an output from 0 to {n_outputs - 1}, or one of {', '.join(REDUCTIONS)}"
    if isinstance(outputs, str) and outputs in REDUCTIONS:
        return Reduction(cast(OutputsWord, outputs), -1, n_outputs)
    # At the command line a number comes as a word; what else counts as a digit somewhere, as "²", does not count here.
    index = int(outputs) if isinstance(outputs, str) and re.fullmatch("-?[0-9]{1,18}", outputs) else whole(outputs)
    if index is not None:
        if 0 <= index < n_outputs:
            return Reduction("one", index, n_outputs)
        raise OutputsError(
            f"outputs={index} for a network with {n_outputs} outputs",
            allowed=allowed,
            remedy="count from 0: the Flux notebook's model(x)[1] is outputs=0",
        )
    remedy = f'choose one of them{nearest(outputs, REDUCTIONS)}; the default is "trace"'
    # Several outputs have as many meanings as all of them have: one of these has to be said.
    if isinstance(outputs, list | tuple | range):
        shown = list(outputs)
        remedy = (
            f'take ub.ntk(model, x, outputs="diagonal")[..., {shown}] for the kernel of each, .sum(-1) of that for '
            f'their trace, or ub.ntk(model, x, outputs="full")[..., {shown}, :][..., {shown}] for the block of Theta'
        )
    elif isinstance(outputs, str) and re.fullmatch("[0-9]+( *, *[0-9]+)+", outputs):
        remedy = (
            f"choose one of them; or compute diagonal, and take [..., [{outputs}]] of the array for the kernel of "
            "each, .sum(-1) of that for their trace"
        )
    raise OutputsError(f"outputs={brief(outputs)}", allowed=allowed, remedy=remedy)
