"""How a kernel will be computed, and what it will cost, before anything runs: operations, memory, disk, tile size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.backends.reduction import Outputs
from udlbridge.backends.sites import activation_numbers, samples_together
from udlbridge.calls import explained
from udlbridge.errors import OptionError
from udlbridge.kernels.calibration import calibrated
from udlbridge.kernels.costs import factor_numbers, formed_numbers, passes_flops, tiles_flops
from udlbridge.kernels.plans import Plan
from udlbridge.kernels.request import DEFAULT_MEMORY, KernelRequest, as_network, kernel_request
from udlbridge.kernels.tiling import Grid, block_count, prepared_samples
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import plausible_shape, random_batch
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection
from udlbridge.options import checked_count, checked_flag, checked_shape, show_bytes
from udlbridge.texts import counted
from udlbridge.words import EngineWord, MethodWord

LARGEST_TILE, SMALLEST_TILE = 2048, 64
SHORTEST_BLOCK = 256
"""Tiles of few samples are not made smaller than this: a small store may be appended to."""

TILE_BUFFERS = 5
"""Arrays of a tile's size that exist at once: the one that is filled, two of scratch, two that wait to be written."""


@explained()
def plan(
    model: Model | Any,
    n: int,
    m: int | None = None,
    *,
    sample_shape: tuple[int, ...] | None = None,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: EngineWord | None = None,
    method: MethodWord = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: Any = None,
    calibrate: bool = True,
    output: Any = None,
) -> Plan:
    """Say what `ntk` or `compute_kernel` would do for `n` samples (and `m` others), and what it would cost.

    Args:
        model: the network.
        n: number of samples.
        m: number of samples of a cross kernel; None means the symmetric kernel of the `n`.
        sample_shape: shape of one sample; None means the one that the layers need, where they say so. A module is tried
            on random numbers of that shape, or where it does not take these, on tokens; what `as_network`
            gave needs none once samples came to it, which may be several inputs.
        outputs, params, backend, method, threads, device: as for `ntk`.
        memory: bound of the working memory, as "2GB".
        calibrate: compute for about two seconds to predict the time. Without it the engine need not be here.
        output: of a module, as for `as_network`.

    Raises:
        OptionError: an unknown method, one that the model does not have, an invalid shape, or too little memory for
            the smallest tile.
        ParameterError: a pattern in `params` that matches nothing.
        BackendUnavailable: the engine cannot run here, so that nothing can be calibrated.

    Examples:
        >>> plan = ub.plan(ub.models.three_layer_sigmoid(), 60_000, outputs=0, calibrate=False)
        >>> plan.method, plan.tile, plan.grid.count
        ('structured', 2000, 465)
    """
    model = as_network(model, output=output)
    sizes: tuple[int, ...] = np.shape(n)
    if sizes:
        raise OptionError(
            f"samples of shape {sizes} in the place of their number",
            allowed="plan(model, n), of which n is a whole number",
            remedy=f"as plan(model, {sizes[0]}, sample_shape={sizes[1:]})",
        )
    shape = None if sample_shape is None else checked_shape("sample_shape", sample_shape)
    if shape is None:
        shape = model.sample_shape if isinstance(model, ForeignNetwork) else plausible_shape(model)
    if shape is None:
        raise OptionError("no sample_shape", allowed="the shape of one sample", remedy="as sample_shape=(1, 28, 28)")
    if isinstance(model, ForeignNetwork) and model.sample_shape != shape:
        random_batch(model, shape, 3)  # it shows on samples what it does
    request = kernel_request(
        model, shape, outputs=outputs, params=params, backend=backend, method=method, memory=memory, threads=threads,
        device=device,
    )  # fmt: skip
    result = make_plan(request, n, m)
    return calibrated(request, result) if checked_flag("calibrate", calibrate) else result


def make_plan(request: KernelRequest, n: int, m: int | None = None, *, tile: int | None = None) -> Plan:
    """The plan for `n` samples, or `n` against `m`, without a calibration; `tile` fixes the tile size, as a store has.

    Raises:
        OptionError: a count below 1, or too little memory for the smallest tile.
        ConversionError: somebody's own network, whose outputs cannot be followed to the parameters.
    """
    n, m = checked_count("n", n, 1), None if m is None else checked_count("m", m, 1)
    columns = n if m is None else m
    longest = max(n, columns)
    if isinstance(request.model, ForeignNetwork):
        request.model.check_sites(request.parameters)
    memory = _Memory.of(request, longest)
    size = LARGEST_TILE if tile is None else tile
    # Those who bring a module of many parameters and take it sample by sample wait for small tiles rather than fail.
    smallest = 1 if isinstance(request.model, ForeignNetwork) else SMALLEST_TILE
    sides = 1 if m is None else 2

    def least(size: int) -> int:
        """Bytes for a tile: the factors of its rows and of its columns, which are the same in a kernel of one tile."""
        return memory.needed(size, min(2, block_count(longest, size) * sides))

    while tile is None and size > smallest and least(size) > request.memory:
        size //= 2
    if least(size) > request.memory:
        raise OptionError(
            f"memory={show_bytes(request.memory)} for tiles of {counted(size, 'sample')}",
            allowed=f"at least {show_bytes(least(size))} for this network, method and reduction",
            remedy="allow more" if request.reduction.n_cotangents == 1 else "allow more, or ask for one output",
        )
    if tile is None:
        # Blocks of equal size: a last one that is nearly empty would cost a whole chunk on disk.
        size = max(min(size, SHORTEST_BLOCK), block_count(longest, block_count(longest, size)))
    grid = Grid(n, columns, size, m is None)
    blocks = block_count(n, size) + (0 if m is None else block_count(columns, size))
    room = request.memory - memory.needed(size, 0)
    cached = min(max(room // memory.block_bytes(size), 2), max(blocks, 2))
    prepared = prepared_samples(grid, cached)
    sample_flops = passes_flops(request)
    return Plan(
        n=n,
        m=columns,
        symmetric=m is None,
        outputs=request.reduction.outputs,
        dtype=request.model.dtype.name,
        backend=request.backend,
        method=request.method,
        tile=size,
        cached_blocks=cached,
        flops=tiles_flops(request, grid) + prepared * sample_flops,
        prepared=prepared,
        sample_flops=sample_flops,
        memory=request.memory,
        ram_bytes=memory.needed(size, min(cached, blocks)),
        disk_bytes=grid.count * size * size * memory.entry,
        threads=request.threads,
    )


@dataclass(frozen=True)
class _Memory:
    """Bytes that a kernel takes by the size of its tiles.

    `fixed`: of the engine and of the network. `entry`: of one pair of samples. `factors`: of what one sample's factors
    hold; `copies` of them, and `passing` bytes of activations, exist besides while they are computed, of so many of the
    samples of a block at a time as `together` says. `formed`: of the gradients of one sample that are formed at a time,
    of at most `most_formed` for a block. `longest`: the longer side of the kernel, since no block has more samples.
    """

    fixed: int
    entry: int
    factors: int
    copies: int
    passing: int
    together: Callable[[int], int]
    formed: int
    most_formed: int
    longest: int

    @classmethod
    def of(cls, request: KernelRequest, longest: int) -> _Memory:
        """What the engine's footprint and the network's shapes say."""
        footprint, itemsize = backends.engine(request.backend).footprint, request.model.dtype.itemsize
        network = (request.computed, request.sample_shape, request.params)
        return cls(
            fixed=footprint.fixed_bytes + 3 * request.model.n_params * itemsize,
            entry=prod(request.reduction.trailing) * itemsize,
            factors=factor_numbers(request, forms_gradients=footprint.forms_gradients) * itemsize,
            copies=footprint.factor_copies,
            passing=activation_numbers(*network) * itemsize,
            together=partial(samples_together, *network) if request.method == "structured" else int,
            formed=formed_numbers(request) * itemsize,
            most_formed=footprint.formed_numbers * itemsize,
            longest=longest,
        )

    def needed(self, tile: int, blocks: int) -> int:
        """With tiles of that size, and the factors of so many blocks in memory."""
        block = min(tile, self.longest)
        passing = self.together(block)
        held = block * self.factors * blocks + passing * (self.factors * self.copies + self.passing)
        held += 2 * min(block * self.formed, self.most_formed)
        return self.fixed + TILE_BUFFERS * block * block * self.entry + held

    def block_bytes(self, tile: int) -> int:
        """Of the factors of one block; at least 1, for a kernel over no parameters."""
        return max(min(tile, self.longest) * self.factors, 1)
