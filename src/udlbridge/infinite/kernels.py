"""NNGP and NTK of infinitely wide networks, in blocks of samples, on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.arrays import as_array
from udlbridge.backends.symmetry import symmetrise
from udlbridge.backends.threads import numpy_blas
from udlbridge.displays import Displayed, Row
from udlbridge.errors import LayerError, OptionError, ShapeError
from udlbridge.infinite.propagation import through
from udlbridge.infinite.states import Setting, State, States
from udlbridge.kernels.finite import check_finite
from udlbridge.networks.inputs import checked_batch
from udlbridge.networks.layers import GlobalMeanPool, Layer, MeanPool, Residual
from udlbridge.networks.model import Model
from udlbridge.options import brief, checked_choice, checked_not_negative, checked_positive, parse_bytes, thread_count
from udlbridge.progress import kernel_progress
from udlbridge.texts import kind_of
from udlbridge.words import EngineWord

COPIES = 12
"""Arrays of a block's size that exist at once: both kernels, and what an activation makes on its way."""

LARGEST_BLOCK = 128
"""Samples of a block's side: what an activation makes on its way stays near the cores, and NumPy's calls few."""


@dataclass(frozen=True, eq=False, repr=False)
class Kernels(Displayed):
    """The NNGP kernel and the NTK of one output, (n, m) float64 each; None where it was not asked for."""

    nngp: Float[np.ndarray, "n m"] | None
    ntk: Float[np.ndarray, "n m"] | None

    def __str__(self) -> str:
        rows = [f"  {row['kernel']:<5} from {row['smallest']:.6g} to {row['largest']:.6g}" for row in self.as_rows()]
        return "\n".join([self.headline(), *rows])

    def headline(self) -> str:
        """What they are of, and their shape."""
        shape = next(kernel.shape for kernel in (self.nngp, self.ntk) if kernel is not None)
        return f"Kernels of infinite width, {shape[0]:,} x {shape[1]:,}, float64"

    def as_rows(self) -> list[Row]:
        """A row for each kernel, with its smallest and largest entry."""
        return [
            {
                "kernel": name,
                "smallest": float(kernel.min(initial=np.inf)),
                "largest": float(kernel.max(initial=-np.inf)),
            }
            for name, kernel in (("NNGP", self.nngp), ("NTK", self.ntk))
            if kernel is not None
        ]


def kernels(
    model: Model | Sequence[Layer],
    x1: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    w_std: float,
    b_std: float,
    parameterization: str = "ntk",
    get: str | Sequence[str] = ("nngp", "ntk"),
    memory: int | str = "2GB",
    threads: int | None = None,
    backend: EngineWord | None = None,
    out: Mapping[str, np.ndarray] | None = None,
    progress: bool | None = False,
) -> Kernels:
    """The kernels of a network whose layers are infinitely wide: NNGP, the covariance of one output over random
    weights, and NTK, the limit of the empirical kernel of one output.

    Supported: Dense, Conv1d and Conv2d without groups, all activations, Flatten, MeanPool, GlobalMeanPool, Residual
    whose branch ends in weights, LayerNorm without parameters after Dense, Dropout (as in inference). The widths of
    hidden layers do not matter, but for parameterization "standard". Activations are taken in closed form, or by a
    series that is exact to 1e-12 (`udlbridge.infinite.duals`).

    Args:
        model: a Model, whose weights play no part, or its layers.
        x1, x2: samples (n, *D) and (m, *D) of float32 or float64; None means `x1`.
        w_std, b_std: standard deviations of weights, times sqrt(fan_in), and of biases.
        parameterization: "ntk", or "standard", for the widths that the layers have.
        get: "nngp", "ntk", or both.
        memory: bound of the working memory, besides samples and results.
        threads: how many blocks are computed at a time; None means all cores.
        backend: None computes here, in NumPy; "julia" by `UDLBridge.infinite_ntk`, which shares no code with it and
            forms all pairs of positions at once: a second opinion, for few samples, without `memory` and `threads`.
        out: where to write, by name: arrays (n, m) of float32 or float64, as memory maps of files larger than memory
            (`np.lib.format.open_memmap`). They are filled block by block, and are the result's.
        progress: show a bar; None means: if standard error is a terminal.

    Returns:
        `Kernels`, with arrays (n, m) in float64, or those of `out`.

    Raises:
        LayerError: a layer without a kernel at infinite width, or layers that do not end in one vector.
        InputError, ShapeError, DTypeError: what is wrong with the samples.
        OptionError: what is wrong with the rest; an engine that has no such kernels.
        NumericalError: variances so large that a series does not converge, or that an entry is not finite.

    Source: Jacot, Gabriel, Hongler (2018); Lee et al. (2018); Arora et al. (2019) and Novak et al. (2019) for
    convolutions; Sohl-Dickstein, Novak, Schoenholz, Lee (2020) for "standard".
    """
    wanted = _checked_names(get)
    setting = Setting(
        checked_positive("w_std", w_std),
        checked_not_negative("b_std", b_std),
        checked_choice("parameterization", parameterization, ("ntk", "standard")) == "standard",
    )
    network = model if isinstance(model, Model) else Model(model)
    rows = _samples(network, x1, "x1")
    columns = rows if x2 is None else _samples(network, x2, "x2")
    if columns.shape[1:] != rows.shape[1:]:
        raise ShapeError(
            f"the samples of x2 have shape {columns.shape[1:]}, those of x1 {rows.shape[1:]}",
            allowed="the same shape",
            remedy="prepare both in the same way",
        )
    if len(network.output_shape(rows.shape[1:])) != 1:
        raise LayerError("the layers do not end in a vector", allowed="one vector per sample", remedy="add Flatten()")
    if backend is not None:
        name = backends.checked_name(backend)
        backends.check_ability("kernels of infinite width", name, lambda engine: engine.infinite_kernels)
        numbers = (setting.w_std, setting.b_std, parameterization)
        found = backends.get(name).infinite_kernels(network, rows, None if x2 is None else columns, *numbers)
        results = _results(out, wanted, (len(rows), len(columns)))
        for name, kernel in zip(("nngp", "ntk"), found, strict=True):
            if name in results:
                results[name][...] = kernel
                check_finite(results[name], name)
        return Kernels(results.get("nngp"), results.get("ntk"))
    pairs = len(rows.shape) > 2 and _needs_pairs(network.layers)
    workers = thread_count(threads) or os.cpu_count() or 1
    size = _block_size(rows.shape[1:], pairs, parse_bytes(memory), workers)
    results = _results(out, wanted, (len(rows), len(columns)))
    todo = list(_blocks(len(rows), len(columns), size, symmetric=x2 is None))

    def compute(tile: tuple[slice, slice]) -> None:
        own, other = tile
        same = x2 is None and own == other
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below, by its place
            states = through(network.layers, _start(rows[own], columns[other], pairs, same), setting)
        for name, result in results.items():
            found = states.across.nngp if name == "nngp" else states.across.ntk
            block = result[own, other]
            block[...] = 0.0 if found is None else found
            check_finite(block, name, (own.start, other.start))
            if same:
                symmetrise(block)
            elif x2 is None:
                result[other, own] = block.T

    bar = kernel_progress(float(len(todo)), show=progress, operations=False)
    # BLAS gets one thread where blocks keep the cores busy.
    limit = numpy_blas.to(1 if workers > 1 else None)
    with limit, bar as advance, ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(compute, todo):
            advance(1.0, 0)
    return Kernels(results.get("nngp"), results.get("ntk"))


def _results(
    out: Mapping[str, np.ndarray] | None, wanted: Sequence[str], shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Arrays for the results, by name.

    Raises:
        OptionError: `out` has other names, or something that cannot be written to.
        ShapeError: its arrays are of another shape.
    """
    if out is None:
        return {name: np.empty(shape) for name in wanted}
    if set(out) != set(wanted):
        raise OptionError(
            f"out for {', '.join(map(repr, out))}", allowed=", ".join(map(repr, wanted)), remedy="give those in get="
        )
    for name, array in out.items():
        if (
            not isinstance(array, np.ndarray)
            or array.dtype not in (np.float32, np.float64)
            or not array.flags.writeable
        ):
            raise OptionError(
                f"out[{name!r}] is {kind_of(array)} that kernels cannot be written to",
                allowed="arrays of float32 or float64, also memory maps, that are writeable",
                remedy='np.lib.format.open_memmap("ntk.npy", "w+", np.float32, (n, m))',
            )
        if array.shape != shape:
            raise ShapeError(f"out[{name!r}] of shape {array.shape}", allowed=f"{shape}", remedy="make it so large")
    return dict(out)


def _start(first: np.ndarray, second: np.ndarray, pairs: bool, same: bool) -> States:
    """Covariances of the samples themselves: products over channels, divided by their number."""
    shape = first.shape[1:]

    def across(a: np.ndarray, b: np.ndarray, left: str, right: str) -> np.ndarray:
        space = [("hH", "wW", "dD")[axis] for axis in range(len(shape) - 1)]
        one, other = "".join(s[0] for s in space), "".join(s[1] if pairs else s[0] for s in space)
        out = "".join(s if pairs else s[0] for s in space)
        lead = left if left == right else left + right
        return np.einsum(f"{left}c{one},{right}c{other}->{lead}{out}", a, b, optimize=True) / shape[0]

    def state(k: np.ndarray, lead: int) -> State:
        return State(k, None, lead, shape, pairs)

    own = state(across(first, first, "i", "i"), 1)
    states = States(own, own if same else state(across(second, second, "i", "i"), 1), own, same)
    k = across(first, second, "i", "j")
    if same:
        i = np.arange(len(k))
        k[i, i] = own.nngp
    return States(states.first, states.second, state(k, 2), same)


def _needs_pairs(layers: Sequence[Layer]) -> bool:
    """Whether some layer mixes positions: then the kernels of all pairs of positions are needed, not of each alone."""
    return any(
        isinstance(layer, MeanPool | GlobalMeanPool)
        or (isinstance(layer, Residual) and _needs_pairs([*layer.layers, *layer.shortcut]))
        for layer in layers
    )


def _block_size(shape: tuple[int, ...], pairs: bool, memory: int, workers: int) -> int:
    positions = prod(shape[1:]) ** (2 if pairs else 1)
    room = memory / workers / (8 * COPIES * positions)
    if room < 1:
        raise OptionError(
            f"memory={memory} bytes for samples of shape {shape} on {workers} threads",
            allowed=f"at least {8 * COPIES * positions * workers} bytes",
            remedy="allow more, or use fewer threads",
        )
    return max(1, min(LARGEST_BLOCK, int(room**0.5)))


def _blocks(n: int, m: int, size: int, *, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    for row in range(0, n, size):
        for column in range(0, row + 1 if symmetric else m, size):
            yield slice(row, min(row + size, n)), slice(column, min(column + size, m))


def own_samples(model: Model | Sequence[Layer], x: np.ndarray, name: str) -> tuple[Model, np.ndarray]:
    """The network in the dtype of the samples, whose weights play no part, and the samples, checked.

    Raises:
        InputError, ShapeError, DTypeError: what is wrong with the samples.
    """
    network = model if isinstance(model, Model) else Model(model)
    array = as_array(x, name, wanted=network.dtype)
    own = network.astype(array.dtype) if array.dtype in (np.float32, np.float64) else network
    return own, checked_batch(own, array, name)


def _samples(model: Model, x: np.ndarray, name: str) -> np.ndarray:
    return own_samples(model, x, name)[1].astype(np.float64)


def _checked_names(get: str | Sequence[str]) -> tuple[str, ...]:
    names = (get,) if isinstance(get, str) else tuple(get)
    if not names or any(name not in ("nngp", "ntk") for name in names):
        raise OptionError(f"get={brief(get)}", allowed='"nngp", "ntk", or both', remedy="choose among these")
    return names
