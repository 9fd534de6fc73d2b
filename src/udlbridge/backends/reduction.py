"""The reductions of the full kernel Theta (n, m, O, O): what `outputs=` means, said once.

Peers differ here by a factor O: neural-tangents divides the trace by O, the PyTorch tutorial sums it, the Flux
notebook takes one output. So the choice has a name and is always explicit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

from udlbridge.errors import OutputsError
from udlbridge.options import brief, flag, whole
from udlbridge.texts import counted, nearest
from udlbridge.words import OutputsWord

REDUCTIONS: dict[str, str] = {
    "trace": "sum_a Theta[:, :, a, a]",
    "mean": "trace / O",
    "sum": "sum_ab Theta[:, :, a, b]",
    "diagonal": "Theta[:, :, a, a]",
    "full": "Theta",
}

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int

    Outputs = int | OutputsWord | Sequence[int] | Int[np.ndarray, " outputs"]
else:  # as the words of options, it is checked when it comes
    Outputs = Any


@dataclass(frozen=True)
class Reduction:
    """A checked `outputs=`: `name` is one of `REDUCTIONS` or "one"; `indices` are the outputs that are passed back.

    These are all of them, as a range, but for "one", and for "diagonal" where it is of some outputs, in the order in
    which these were asked for.
    """

    name: OutputsWord | Literal["one"]
    indices: tuple[int, ...] | range
    n_outputs: int

    @property
    def trailing(self) -> tuple[int, ...]:
        """The axes after (n, m): (), or (K,) for the diagonal of K outputs, or (O, O)."""
        if self.name == "diagonal":
            return (len(self.indices),)
        return (self.n_outputs, self.n_outputs) if self.name == "full" else ()

    @property
    def n_cotangents(self) -> int:
        """How many backward passes a sample needs: one for each of the outputs, or one for their sum."""
        return 1 if self.name == "sum" else len(self.indices)

    @property
    def scale(self) -> float:
        """What the sum over outputs is multiplied by: 1/O for "mean", else 1."""
        return 1.0 / self.n_outputs if self.name == "mean" else 1.0

    @property
    def outputs(self) -> int | OutputsWord | list[int]:
        """As the user wrote it, in one way for one kernel: a list of all outputs in their order is "diagonal"."""
        if self.name == "one":
            return self.indices[0]
        return self.name if isinstance(self.indices, range) else list(self.indices)


def checked_reduction(outputs: object, n_outputs: int) -> Reduction:
    """The checked form of `outputs` for a network with `n_outputs` outputs.

    Raises:
        OutputsError: unknown name, an index outside 0 ... n_outputs - 1, or a list that is empty, names an output
            twice, or holds anything but such numbers.
    """
    if isinstance(outputs, str) and outputs in REDUCTIONS:
        return Reduction(cast(OutputsWord, outputs), range(n_outputs), n_outputs)
    given = _as_numbers(outputs)
    index = whole(given)
    if index is not None:
        return Reduction("one", (_checked_index(f"outputs={index}", index, n_outputs),), n_outputs)
    if is_list(given):
        return Reduction("diagonal", _checked_indices(given, n_outputs), n_outputs)
    remedy = f'choose one of them{nearest(outputs, REDUCTIONS)}; the default is "trace"'
    if isinstance(outputs, Iterable) and not isinstance(outputs, str | bytes):
        remedy = "name some outputs in a list, as outputs=[0, 1]"
    elif isinstance(outputs, str) and re.search("[0-9]", outputs):
        remedy = "name one by its number, as 2, or some with commas between them, as 0,2"
    raise OutputsError(f"outputs={brief(outputs)}", allowed=_allowed(n_outputs), remedy=remedy)


def check_matrix(reduction: Reduction) -> None:
    """Refuse a reduction that does not give a matrix (n, n).

    Raises:
        OutputsError: it keeps the outputs apart.
    """
    if reduction.trailing:
        raise OutputsError(
            f"outputs={reduction.outputs!r} keeps the outputs apart",
            allowed="an output, trace, mean, sum: those that give an (n, n) matrix",
            remedy='take "trace", or one output after the other',
        )


def is_list(outputs: object) -> TypeGuard[Iterable[Any]]:
    """Whether it names several outputs: an array of NumPy, torch or pandas with one axis is as good as a list."""
    return isinstance(outputs, list | tuple | range) or getattr(outputs, "ndim", None) == 1


def _as_numbers(outputs: object) -> object:
    """Numbers that come as a word from the command line: "2" is 2, "0,2" is [0, 2], and "2," is [2]."""
    # What else counts as a digit somewhere, as "²", does not count here.
    if not isinstance(outputs, str) or not re.fullmatch(r"-?[0-9]{1,18}( *, *-?[0-9]{1,18})*( *,)?", outputs):
        return outputs
    numbers = [int(number) for number in re.findall("-?[0-9]+", outputs)]
    return numbers if "," in outputs else numbers[0]


def _checked_indices(given: Iterable[Any], n_outputs: int) -> tuple[int, ...] | range:
    """The numbers of several outputs. Whatever comes is short: more than there are cannot all be different."""
    said = f"outputs={brief(given)}"
    found: dict[int, None] = {}
    for entry in given:
        if flag(entry) is not None:
            raise OutputsError(
                f"{said} is a mask",
                allowed="the numbers of outputs",
                remedy="turn it into numbers: outputs=np.flatnonzero(mask)",
            )
        index = whole(entry)
        if index is None:
            raise OutputsError(
                f"{said} holds {brief(entry)}", allowed=f"whole numbers from 0 to {n_outputs - 1}", remedy="correct it"
            )
        _checked_index(f"{said}, which holds {index},", index, n_outputs)
        if index in found:
            raise OutputsError(
                f"{said} names output {index} twice",
                allowed="each output once",
                remedy="name it once, and take its kernel twice from the result: k[..., [0, 0]]",
                shell="name it once",
            )
        found[index] = None
    if not found:
        raise OutputsError(
            f"{said} names no output",
            allowed=_allowed(n_outputs),
            remedy='name one at least; "diagonal" is the kernel of each of them, "trace" their sum',
        )
    indices = tuple(found)
    return range(n_outputs) if indices == tuple(range(n_outputs)) else indices


def _checked_index(said: str, index: int, n_outputs: int) -> int:
    if 0 <= index < n_outputs:
        return index
    raise OutputsError(
        f"{said} for a network with {counted(n_outputs, 'output')}",
        allowed=_allowed(n_outputs),
        remedy="count from 0: the Flux notebook's model(x)[1] is outputs=0",
    )


def _allowed(n_outputs: int) -> str:
    return f"an output from 0 to {n_outputs - 1}, or one of {', '.join(REDUCTIONS)}, or a list of outputs"
