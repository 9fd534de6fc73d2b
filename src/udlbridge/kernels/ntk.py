"""The empirical neural tangent kernel of a network, whole or layer by layer, on any engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.backends.reduction import Outputs
from udlbridge.calls import explained
from udlbridge.errors import ShapeError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.planning import make_plan
from udlbridge.kernels.request import DEFAULT_MEMORY, KernelRequest, as_network, kernel_request
from udlbridge.kernels.tiling import TileComputer, mirror
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.inputs import checked_samples
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection, names_by_layer
from udlbridge.progress import kernel_progress
from udlbridge.words import EngineWord, MethodWord


@explained()
def ntk(
    model: Model | Any,
    x: Any,
    x2: Any = None,
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: EngineWord | None = None,
    method: MethodWord = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: Any = None,
    progress: bool | None = False,
    output: Any = None,
) -> Float[np.ndarray, "n m *trailing"]:
    """The empirical neural tangent kernel Theta[i,j,a,b] = sum_p J[i,a,p] J[j,b,p], reduced over outputs.

    Args:
        model: the network, evaluated in inference mode. Any `torch.nn.Module` will do too, without translation: over
            the parameters that require a gradient, a shared one counted once. See `udlbridge.as_network`.
        x: samples (n, *D), of the model's dtype. Of a module or graph of several inputs, a tuple of arrays by position,
            or a dict of arrays by name, with the samples first in each.
        x2: samples (m, *D) for a cross kernel; None means `x`.
        outputs: an int k (Theta[:, :, k, k], counted from 0), "trace" (default), "mean" (trace / O), "sum" (kernel of
            the summed output), "diagonal" or "full"; or a list of outputs, as [2, 0]: the diagonal of these alone, in
            this order.
        params: which parameters the kernel sums over: None for all, names or glob patterns ("3.*", "*.bias"), "readout"
            (the last layer with parameters) or "hidden" (all before it). Of a module, its last module with parameters,
            and all others.
        backend: as for `udlbridge.outputs`.
        method: "structured" never forms the Jacobian: each layer multiplies Gram matrices of its inputs and
            backpropagated errors, or its per-sample gradients, whichever costs less (`udlbridge.backends.rules`);
            "plain" multiplies per-sample Jacobians; "auto" is "structured", which every layer has and which never costs
            more. Kernels of a `Graph` on the reference engine are plain.
        memory: bound of the working memory, as "2GB": what is held besides the samples and the result. A GPU takes up
            to 1 GB more of its own for gradients that are formed at a time.
        threads: for the engine's BLAS; None leaves it alone.
        device: where torch computes: "cpu", "cuda", "mps"; None is where the module is, and the CPU for a `Model`.
        progress: show a bar; None means: if standard error is a terminal.
        output: which of the outputs of a module counts, where it gives several, as for `udlbridge.as_network`.

    Returns:
        (n, m), (n, m, O) for "diagonal", (n, m, K) for a list of K outputs, or (n, m, O, O) for "full", of the model's
        dtype.

    Raises:
        As `udlbridge.outputs`; OutputsError for a reduction or an output that does not exist, or one twice in a list;
        ParameterError for a pattern that matches nothing; ConversionError for a module whose outputs are random, depend
        on the batch, or are not a tensor; OptionError for a method that does not exist, too little memory, threads
        below 1; NumericalError for an entry that is not finite, since a number on the way to it left the range of the
        dtype.

    Source: Jacot, Gabriel, Hongler (2018); structured form: Novak, Sohl-Dickstein, Schoenholz (2022).

    Examples:
        >>> ub.ntk(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS).round(3)
        array([[14.229, 11.109],
               [11.109,  9.095]], dtype=float32)
    """
    model = as_network(model, output=output)
    rows, columns = _batches(model, x, x2)
    request = kernel_request(
        model, rows.shape[1:], outputs=outputs, params=params, backend=backend, method=method, memory=memory,
        threads=threads, device=device,
    )  # fmt: skip
    return _kernels(request, rows, columns, {"": request.parameters}, progress)[""]


@explained()
def layer_kernels(
    model: Model | Any,
    x: Any,
    x2: Any = None,
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    backend: EngineWord | None = None,
    method: MethodWord = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: Any = None,
    progress: bool | None = False,
    output: Any = None,
) -> dict[str, np.ndarray]:
    """The parts of the kernel that the layers have, which sum to `ntk`, from one set of passes.

    Args:
        model: the network.
        x, x2, outputs, params, backend, method, memory, threads, device, progress, output: as for `udlbridge.ntk`;
            `memory` bounds what is held besides the samples and all the parts.

    Returns:
        A kernel as `udlbridge.ntk` gives it, by the number of the layer, as text: "0", "2", ... of a module by the path
        of the module that holds the parameters: "blocks.0.attention". Layers without parameters, or without any of
        `params`, have none.

    Raises:
        As `udlbridge.ntk`.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> parts = ub.layer_kernels(model, np.eye(2))
        >>> list(parts), bool(np.allclose(sum(parts.values()), ub.ntk(model, np.eye(2))))
        (['0', '1'], True)
    """
    model = as_network(model, output=output)
    rows, columns = _batches(model, x, x2)
    request = kernel_request(
        model, rows.shape[1:], outputs=outputs, params=params, backend=backend, method=method, memory=memory,
        threads=threads, device=device,
    )  # fmt: skip
    layers = model.names_by_layer if isinstance(model, ForeignNetwork) else names_by_layer
    return _kernels(request, rows, columns, layers(request.parameters), progress)


def _batches(model: Any, x: Any, x2: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Both batches, checked."""
    rows = checked_samples(model, x, passing=True)
    columns = None if x2 is None else checked_samples(model, x2, "x2")
    if columns is not None and columns.shape[1:] != rows.shape[1:]:
        raise ShapeError(
            f"the samples of x2 have shape {columns.shape[1:]}, those of x {rows.shape[1:]}",
            allowed="the same shape",
            remedy="prepare both in the same way",
        )
    return rows, columns


def _kernels(
    request: KernelRequest,
    rows: np.ndarray,
    columns: np.ndarray | None,
    parts: Mapping[str, tuple[str, ...]],
    progress: bool | None,
) -> dict[str, np.ndarray]:
    """The shares of the kernel that the parameters of each part have, tile by tile."""
    plan = make_plan(request, len(rows), None if columns is None else len(columns))
    engine = backends.get(request.backend)
    trailing, dtype = request.reduction.trailing, request.model.dtype
    results = {part: np.empty((plan.n, plan.m, *trailing), dtype=dtype) for part in parts}
    with kernel_progress(plan.flops, show=progress) as advance, TileComputer(
        engine, request, rows, columns, plan.grid, plan.cached_blocks, advance=partial(advance, written=0),
        entry_flops=plan.entry_flops, sample_flops=plan.sample_flops,
    ) as computer:  # fmt: skip
        for tile in plan.grid.tiles():
            for part, names in parts.items():
                # Engines write into the result: a tile is in the cache when its mirror image is made.
                block = results[part][tile.rows, tile.columns]
                computer.compute(tile, block, names, share=1 / len(parts))
                check_finite(block, corner=tile.corner)
                if plan.symmetric and tile.row != tile.column:
                    mirror(results[part], tile)
    return results
