"""What a kernel will cost, before anything runs: method, operations, memory, disk, tile size, time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.backends.jobs import KernelJob, Method
from udlbridge.backends.reduction import Outputs, Reduction, reduction
from udlbridge.backends.rules import gradients_cost
from udlbridge.backends.sites import chosen_size, places
from udlbridge.errors import OptionError
from udlbridge.kernels.tiling import Grid
from udlbridge.networks.inputs import check_model, output_size, plausible_shape, random_batch
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection, selected_parameters
from udlbridge.options import checked_count, parse_bytes, show_bytes, thread_count

DEFAULT_MEMORY = "2GB"
LARGEST_TILE, SMALLEST_TILE = 2048, 64
SHORTEST_BLOCK = 256
"""Tiles are no smaller for want of samples: a small store may be appended to."""

TILE_BUFFERS = 5
"""Arrays of a tile's size that exist at once: the one that is filled, two of scratch, two that wait to be written."""

CALIBRATION_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """How a kernel will be computed, and what that is predicted to cost.

    `flops` counts a multiply-add as two operations. `ram_bytes` is the predicted peak over what the process holds
    already (without the data, and without the result where that is an array). `seconds` and `gflops` come from a
    calibration of about two seconds; they are None without one.
    """

    n: int
    m: int
    symmetric: bool
    outputs: Outputs
    dtype: str
    backend: str
    method: Method
    tile: int
    kept_blocks: int
    flops: float
    memory: int
    ram_bytes: int
    disk_bytes: int
    threads: int | None = None
    gflops: float | None = None
    seconds: float | None = None

    @property
    def grid(self) -> Grid:
        """The tiles."""
        return Grid(self.n, self.m, self.tile, self.symmetric)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        shape = f"{self.n:,} x {self.m:,}" + (", lower triangle" if self.symmetric else "")
        tiles = sum(1 for _ in self.grid.tiles())
        lines = [
            f"kernel   {shape}, outputs={self.outputs!r}, {self.dtype}, on {self.backend}",
            f"method   {self.method}, {tiles:,} tiles of {self.tile}",
            f"work     {self.flops / 1e9:,.0f} GFLOP",
            f"memory   {show_bytes(self.ram_bytes)} of {show_bytes(self.memory)} allowed",
            f"disk     {show_bytes(self.disk_bytes)}",
        ]
        if self.seconds is not None and self.gflops is not None:
            lines.append(f"time     about {self.seconds:,.1f} s at {self.gflops:,.0f} GFLOP/s (calibrated)")
        return "\n".join(lines)


def plan(
    model: Model,
    n: int,
    m: int | None = None,
    *,
    sample_shape: tuple[int, ...] | None = None,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: str | None = None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    calibrate: bool = True,
) -> Plan:
    """Say what `ntk` or `compute_kernel` would do for `n` samples (and `m` others), and what it would cost.

    Args:
        model: the network.
        n: number of samples.
        m: number of samples of a cross kernel; None means the symmetric kernel of the `n`.
        sample_shape: shape of one sample; None means the one that the layers need, where they say so.
        outputs, params, backend, method, threads: as for `ntk`.
        memory: bound of the working memory, as "2GB".
        calibrate: compute for about two seconds to predict the time.

    Raises:
        OptionError: an unknown method, one that the model does not have, or too little memory for the smallest tile.
        ParameterError: a pattern in `params` that matches nothing.
    """
    check_model(model)
    if sample_shape is None:
        sample_shape = plausible_shape(model)
        if sample_shape is None:
            raise OptionError(
                "no sample_shape", allowed="the shape of one sample", remedy="as sample_shape=(1, 28, 28)"
            )
    probe = random_batch(model, sample_shape, 1)
    chosen = reduction(outputs, output_size(model, probe))
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    names = selected_parameters(model, params)
    made = make_plan(model, sample_shape, chosen, n, m, name, method, memory, threads, params=names)
    return calibrated(model, sample_shape, chosen, made, names) if calibrate else made


def make_plan(
    model: Model,
    sample_shape: tuple[int, ...],
    chosen: Reduction,
    n: int,
    m: int | None,
    backend: str,
    method: str,
    memory: int | str,
    threads: int | None,
    tile: int | None = None,
    params: tuple[str, ...] | None = None,
) -> Plan:
    """The plan without a calibration; `tile` fixes the tile size (a store has one already).

    `params` are the names of the parameters that count; None means all.

    Raises:
        OptionError: a count, a method or an amount of memory that cannot be, or too little memory.
    """
    n, m = checked_count("n", n, 1), None if m is None else checked_count("m", m, 1)
    threads = thread_count(threads)
    way = chosen_method(method)
    bound = parse_bytes(memory)
    itemsize = model.dtype.itemsize
    entries = int(np.prod(chosen.trailing, dtype=np.int64)) if chosen.trailing else 1
    footprint = backends.engine(backend).footprint
    per_sample = kept_numbers(model, sample_shape, chosen, way, params, formed=footprint.forms_gradients) * itemsize
    passing = activation_numbers(model, sample_shape) * itemsize
    columns = n if m is None else m

    def need(size: int, blocks: int) -> int:
        block = min(size, max(n, columns))
        buffers = TILE_BUFFERS * block * block * entries * itemsize
        held = block * (per_sample * (blocks + footprint.factor_copies) + passing)
        return footprint.fixed_bytes + 3 * model.n_params * itemsize + buffers + held

    size = LARGEST_TILE if tile is None else tile
    while tile is None and size > SMALLEST_TILE and need(size, 2) > bound:
        size //= 2
    if need(size, 2) > bound:
        raise OptionError(
            f"memory={show_bytes(bound)} for tiles of {size} samples",
            allowed=f"at least {show_bytes(need(size, 2))} for this network, method and reduction",
            remedy="allow more" if chosen.n_cotangents == 1 else "allow more, or ask for one output",
        )
    if tile is None:
        # Blocks of equal size: a last one that is nearly empty would cost a whole chunk on disk.
        blocks = -(-max(n, columns) // size)
        size = max(min(size, SHORTEST_BLOCK), -(-max(n, columns) // blocks))
    every = -(-n // size) + (0 if m is None else -(-columns // size))
    room = bound - need(size, 0)
    block_bytes = max(min(size, max(n, columns)) * per_sample, 1)
    kept = int(min(max(room // block_bytes, 2), max(every, 2)))
    grid = Grid(n, columns, size, m is None)
    pairs = grid.pairs
    flops = 2.0 * pairs * multiply_adds(model, sample_shape, chosen, way, params)
    flops += (n + (m or 0)) * passes_flops(model, sample_shape, chosen)
    tiles = sum(1 for _ in grid.tiles())
    return Plan(
        n=n,
        m=columns,
        symmetric=m is None,
        outputs=chosen.outputs,
        dtype=model.dtype.name,
        backend=backend,
        method=way,
        tile=size,
        kept_blocks=kept,
        flops=flops,
        memory=bound,
        ram_bytes=need(size, min(kept, every)),
        disk_bytes=tiles * size * size * entries * itemsize,
        threads=threads,
    )


def calibrated(
    model: Model,
    sample_shape: tuple[int, ...],
    chosen: Reduction,
    made: Plan,
    params: tuple[str, ...] | None = None,
    device: str = "cpu",
) -> Plan:
    """The plan with the time predicted from computing for about two seconds on random samples."""
    engine = backends.get(made.backend)
    job = KernelJob(model, chosen, made.method, made.threads, device, params)
    size = min(made.tile, made.n, made.m)
    x = random_batch(model, sample_shape, size)
    out = np.empty((size, size, *chosen.trailing), dtype=model.dtype)
    factors = engine.prepare(job, x)  # compiles and warms up
    engine.fill(job, factors, slice(0, size), factors, slice(0, size), out)
    start = time.perf_counter()
    engine.release(engine.prepare(job, x))
    prepared = time.perf_counter() - start
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < CALIBRATION_SECONDS - prepared:
        engine.fill(job, factors, slice(0, size), factors, slice(0, size), out)
        done += 1
    engine.release(factors)
    filled = (time.perf_counter() - start) / done
    samples = made.n if made.symmetric else made.n + made.m
    seconds = filled * made.grid.pairs / size**2 + prepared * samples / size
    return Plan(**{**asdict(made), "seconds": seconds, "gflops": made.flops / seconds / 1e9})


def chosen_method(method: str) -> Method:
    """The method that `method` means: "auto" is "structured", which never costs more.

    Raises:
        OptionError: unknown.
    """
    if method == "plain":
        return "plain"
    if method not in ("auto", "structured"):
        raise OptionError(f"method={method!r}", allowed="auto, structured, plain", remedy='leave it at "auto"')
    return "structured"


def multiply_adds(
    model: Model,
    sample_shape: tuple[int, ...],
    chosen: Reduction,
    method: Method,
    params: tuple[str, ...] | None = None,
) -> float:
    """Multiply-adds for one entry of the kernel: the cheaper form at each place, or P K for "plain"."""
    if method == "plain":
        return float(gradients_cost(chosen_size(model, params), 1, chosen))
    return sum(place.multiply_adds(chosen) for place in places(model, sample_shape, params))


def kept_numbers(
    model: Model,
    sample_shape: tuple[int, ...],
    chosen: Reduction,
    method: Method,
    params: tuple[str, ...] | None = None,
    *,
    formed: bool = False,
) -> int:
    """Numbers that the factors of one sample hold; `formed` as for `Place.kept`."""
    if method == "plain":
        return chosen_size(model, params) * chosen.n_cotangents
    return sum(place.kept(chosen, formed=formed) for place in places(model, sample_shape, params))


def activation_numbers(model: Model, sample_shape: tuple[int, ...]) -> int:
    """Numbers that one sample's forward pass keeps for the way back: what comes to each layer, and leaves it."""
    total, shape = 0, sample_shape
    for layer in model.layers:
        total += int(np.prod(shape, dtype=np.int64))
        shape = layer.output_shape(shape)
    return total + int(np.prod(shape, dtype=np.int64))


def passes_flops(model: Model, sample_shape: tuple[int, ...], chosen: Reduction) -> float:
    """Operations of one forward and K backward passes of one sample."""
    forward = sum(place.forward for place in places(model, sample_shape))
    return 2.0 * forward * (1 + chosen.n_cotangents)
