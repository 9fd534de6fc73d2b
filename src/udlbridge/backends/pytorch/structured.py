"""The sites of a module, by comparing the graphs of two small batches: what its kernel is then computed from.

A parameter that enters once, as it is or with its entries in another order, has a site of its own. Affine maps
with one weight (a layer that is used several times, a recurrent cell) are one site with the positions of all; a table
that is looked up, and is the readout too, is one with both. Any other parameter that enters several times, or through a
function of parameters, has its gradients added up for each sample before anything is multiplied. What enters in a way
that is not known is left to per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from udlbridge.backends.pytorch.layouts import FEW, MORE, Layout, agree, candidates
from udlbridge.backends.pytorch.tensors import gradients
from udlbridge.backends.pytorch.tracing import Entry, Trace
from udlbridge.backends.pytorch.use_rules import use_of
from udlbridge.backends.pytorch.uses import Convolved, Rows, Table, Use
from udlbridge.errors import ConversionError

BIASED = {
    "AddmmBackward0": (2, 0), "ConvolutionBackward0": (1, 2), "NativeLayerNormBackward0": (1, 2),
    "NativeGroupNormBackward0": (1, 2), "NativeBatchNormBackward0": (1, 2),
}  # fmt: skip
"""Nodes of a weight and a bias, and the inputs at which these enter."""


@dataclass(frozen=True)
class Group:
    """Entries, by their indices, that make one site of the parameter `name`; `bias` enters at the same node.

    `summed`: the gradients of all entries are added up. `tied`: some of them are affine maps, the others lookups.
    """

    entries: tuple[int, ...]
    name: str
    summed: bool = False
    bias: str | None = None
    tied: bool = False


@dataclass(frozen=True)
class Recipe:
    """How the graph of any batch is read: what its nodes are called, where samples stand, and which sites there are.

    `places`: of the entries, in order.
    `alone`: parameters that per-sample gradients are taken of. `numbers`: that the nodes make for one sample.
    `unclear`: numbers alone did not say where samples stand, so the errors of all that are tried do, not of the last.
    """

    nodes: tuple[str, ...]
    places: tuple[Any, ...]
    varying: frozenset[int]
    layouts: tuple[Layout | None, ...]
    groups: tuple[Group, ...]
    alone: tuple[str, ...]
    numbers: int
    unclear: bool = False


def recipe(few: Trace, more: Trace, y: Tensor, names: tuple[str, ...], varying: frozenset[int]) -> Recipe:
    """From the traces of two samples and of three; `y` (3, O) are the outputs of the latter.

    Raises:
        ConversionError: the graph hides parameters, or the outputs of a sample depend on others.
    """
    numbers = more.numbers() // MORE
    if any("CheckpointFunction" in name for name in more.names):
        raise ConversionError(
            "the module recomputes activations (a reentrant torch.utils.checkpoint), which hides its parameters",
            allowed="modules whose graph has all of their parameters",
            remedy="turn it off for the kernel, or take use_reentrant=False",
        )
    if not alike(few, more):
        return Recipe((), (), frozenset(), (), (), names, numbers)  # it does not even do the same
    uses = uses_of(more)
    possible = [_possible(one, other) for one, other in zip(uses_of(few), uses, strict=True)]
    unclear = any(len(found) > 1 for found in possible)
    samples = tuple(range(len(y))) if unclear else (len(y) - 1,)
    layouts = _without_leaks(more.entries, uses, possible, y, samples)
    alone = {n for e, layout in zip(more.entries, layouts, strict=True) if layout is None for n in e.names}
    groups = _groups(more.entries, uses, [name for name in names if name not in alone])
    ordered = tuple(name for name in names if name in alone)
    places = tuple(entry.place for entry in more.entries)
    return Recipe(tuple(more.names), places, varying, tuple(layouts), tuple(groups), ordered, numbers, unclear)


def uses_of(trace: Trace) -> list[Use | None]:
    """How the constants enter, one by one; None where that is not known."""
    return [use_of(e.node, e.index, e.entered_shape, e.result_shape) for e in trace.entries]


def alike(few: Trace, more: Trace) -> bool:
    """Whether two evaluations did the same."""
    return few.names == more.names and len(few.entries) == len(more.entries)


def varying_nodes(few: Trace, more: Trace) -> frozenset[int]:
    """Positions, in the order of the graph, of the nodes that depend on no sample, but on how many there are."""
    if few.names != more.names:
        return frozenset()
    both = enumerate(zip(few.shapes, more.shapes, few.constant, strict=True))
    return frozenset(index for index, (one, other, constant) in both if constant and one != other)


def _possible(few: Use | None, more: Use | None) -> list[Layout]:
    """The layouts of the result that fit what single samples give at its locator, or its shape where it has none."""
    if few is None or more is None or few.entered != more.entered:
        return []
    one, other = few.locator, more.locator
    if one is None or other is None:
        return list(candidates(few.result, more.result))
    found = candidates(tuple(one.shape), tuple(other.shape))
    rows = isinstance(more, Rows | Convolved) or tuple(other.shape) != more.result[: other.ndim]
    fitting = [layout for layout in found if not rows or layout.axis == 0]
    return [layout for layout in fitting if agree(layout.samples_first(one), layout.samples_first(other)[:FEW])]


def _without_leaks(
    entries: list[Entry], uses: list[Use | None], possible: list[list[Layout]], y: Tensor, samples: tuple[int, ...]
) -> list[Layout | None]:
    """The one layout of each use by which the outputs of each of some samples have errors at that sample alone.

    Raises:
        ConversionError: samples stand where they do, and yet one has errors at another: they touch each other.
    """
    layouts: list[Layout | None] = [None] * len(entries)
    for index, left in _fitting(entries, uses, possible, y, samples).items():
        use = uses[index]
        assert use is not None
        if len(left) == 1:
            layouts[index] = left[0]
        elif not left and use.locator is not None and len(possible[index]) == 1:
            raise ConversionError(
                "the outputs of one sample depend on other samples of the batch",
                allowed="networks that take each sample by itself",
                remedy="look for means, sums or a softmax over the first axis, and for layers that move samples",
            )
    return layouts


def still_apart(plan: Recipe, trace: Trace, uses: list[Use | None], y: Tensor) -> bool:
    """Whether samples stand where the recipe says, in a trace of a few like one that it was found on."""
    possible = [[] if layout is None else [layout] for layout in plan.layouts]
    samples = tuple(range(len(y))) if plan.unclear else (len(y) - 1,)
    return all(_fitting(trace.entries, uses, possible, y, samples).values())


def moves_samples(plan: Recipe, trace: Trace, uses: list[Use | None], y: Tensor) -> bool:
    """Whether the outputs y (n, O) of some samples have errors at others where the recipe has samples.

    So it is where forward sorts its samples, or groups them, by what they are: a few may be in that order already.
    """
    both = zip(plan.layouts, uses, strict=False)
    known = [(at, use, layout) for at, (layout, use) in enumerate(both) if layout is not None and use is not None]
    if not known or not y.requires_grad or tuple(trace.names) != plan.nodes:
        return False
    weights = torch.cos(torch.arange(1, y.shape[1] + 1, device=y.device)).to(y.dtype)
    points = [trace.entries[at].result for at, _, _ in known]
    for some in (list(range(0, len(y), 2)), list(range(len(y) // 2))):
        found = gradients((y[some] * weights).sum(), points, keep=True)
        own = [use.placed(d, layout) for (_, use, layout), d in zip(known, found, strict=True) if d is not None]
        if any(_leaks(own, some)):
            return True
    return False


def _fitting(
    entries: list[Entry], uses: list[Use | None], possible: list[list[Layout]], y: Tensor, samples: tuple[int, ...]
) -> dict[int, list[Layout]]:
    """By the entries that have any, the layouts by which the outputs of each sample have errors at it alone."""
    known = [index for index, found in enumerate(possible) if found]
    if not known or not y.requires_grad:
        return {}
    weights = torch.cos(torch.arange(1, y.shape[1] + 1, device=y.device)).to(y.dtype)
    points = [entries[index].result for index in known]
    fitting = {index: list(possible[index]) for index in known}
    for i in samples:
        found = gradients((y[i] * weights).sum(), points, keep=True)
        own = [(index, d) for index, d in zip(known, found, strict=True) if d is not None]
        both = [(index, layout, d) for index, d in own for layout in fitting[index]]
        placed = [_placed(uses[index], d, layout) for index, layout, d in both]
        for (index, layout, _), leaks in zip(both, _leaks(placed, i), strict=True):
            if leaks:
                fitting[index].remove(layout)
    return fitting


def _placed(use: Use | None, d: Tensor, layout: Layout) -> Tensor:
    assert use is not None
    return use.placed(d, layout)


def _leaks(errors: list[Tensor], sample: int | list[int]) -> list[bool]:
    """Of errors (n, *shape) of the outputs of one sample, or of some, whether there are any at other samples."""
    if not errors:
        return []
    largest = [d.reshape(len(d), -1).abs().amax(1) if d.numel() else d.new_zeros(len(d)) for d in errors]
    sizes = torch.stack(largest)
    scale = sizes.amax(1, keepdim=True) * sizes.new_tensor([[torch.finfo(d.dtype).eps ** 0.5] for d in errors])
    above = sizes > scale
    above[:, sample] = False
    found: list[bool] = above.any(1).tolist()  # all at once: a GPU is waited for
    return found


def _groups(entries: list[Entry], uses: list[Use | None], names: Iterable[str]) -> list[Group]:
    """What sites there are, in the order of the parameters."""
    own = {name: [index for index, entry in enumerate(entries) if name in entry.names] for name in names}
    apart = {name: indices for name, indices in own.items() if indices and _are_apart([entries[i] for i in indices])}
    groups: list[Group] = []
    done: set[str] = set()
    for name, indices in own.items():
        if name in done or not indices:
            continue
        if name in apart:
            for index in indices:
                bias = _bias_beside(entries, index, apart, done)
                done.update([name] if bias is None else [name, bias])
                groups.append(Group((index,), name, bias=bias))
        elif _are_tied(entries, uses, indices):
            groups.append(Group(tuple(indices), name, tied=True))
        else:
            groups.append(Group(tuple(indices), name, summed=not _are_one_map(entries, uses, indices)))
    return groups


def _are_apart(entries: list[Entry]) -> bool:
    """Whether each is a parameter as it is, and no two have an entry of it in common."""
    if any(entry.path is None or len(entry.names) > 1 for entry in entries):
        return False
    parts = [entry.part for entry in entries]
    return len(parts) == 1 or (
        None not in parts and len(set(parts)) == len(parts) and len({part[0] for part in parts if part}) == 1
    )


def _bias_beside(entries: list[Entry], index: int, apart: Mapping[str, list[int]], done: set[str]) -> str | None:
    """The parameter that is the bias of the affine map or norm of entry `index`, if it enters nowhere else."""
    entry = entries[index]
    node: Any = entry.node
    weight_input, bias_input = BIASED.get(node.name(), (None, None))
    if entry.index != weight_input:
        return None
    if node.name() == "ConvolutionBackward0" and node._saved_transposed:
        return None  # its positions are those of the input, and the bias has those of the output
    for name, indices in apart.items():
        beside = name.rpartition(".")[0] == entry.names[0].rpartition(".")[0]
        if beside and name not in done and len(indices) == 1 and len(apart[entry.names[0]]) == 1:
            other = entries[indices[0]]
            if other.node is entry.node and other.index == bias_input:
                return name
    return None


def _are_one_map(entries: list[Entry], uses: list[Use | None], indices: list[int]) -> bool:
    """Whether one weight, read in the same way each time, makes affine maps of rows at all of these entries."""
    rows = [use for use in (uses[index] for index in indices) if isinstance(use, Rows)]
    found = [entries[index] for index in indices]
    forms = {(entry.path, entry.part, entry.entered_shape) for entry in found}
    return (
        len(rows) == len(found)
        and len(forms) == 1
        and len({use.outputs_first for use in rows}) == 1
        and found[0].path in ((), ("TBackward0",))
        and all(len(entry.names) == 1 for entry in found)
    )


def _are_tied(entries: list[Entry], uses: list[Use | None], indices: list[int]) -> bool:
    """Whether rows of one table are looked up at some entries, and are outputs of affine maps at the others."""
    tables = [index for index in indices if isinstance(uses[index], Table)]
    others = [index for index in indices if index not in tables]
    rows = [use for use in (uses[index] for index in others) if isinstance(use, Rows)]
    return (
        bool(tables)
        and bool(rows)
        and all(entries[index].path == () and len(entries[index].names) == 1 for index in tables)
        and _are_one_map(entries, uses, others)
        # The rows of the table are outputs, and not inputs.
        and (entries[others[0]].path == ("TBackward0",)) != rows[0].outputs_first
    )
