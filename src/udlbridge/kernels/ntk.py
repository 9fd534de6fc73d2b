"""The empirical neural tangent kernel and the derivatives behind it, on any engine."""

from __future__ import annotations

import sys
from math import prod
from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.reduction import Outputs, reduction
from udlbridge.errors import OptionError, ShapeError
from udlbridge.kernels.planning import DEFAULT_MEMORY, chosen_method, make_plan
from udlbridge.kernels.tiling import TileComputer, place
from udlbridge.networks.inputs import checked_batch, output_size
from udlbridge.networks.model import Model
from udlbridge.networks.selection import Selection, names_by_layer, selected_parameters
from udlbridge.options import parse_bytes, thread_count
from udlbridge.progress import kernel_progress


@overload
def ntk(
    model: Model | Any,
    x: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    per_layer: Literal[False] = False,
    backend: str | None = None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool | None = False,
) -> Float[np.ndarray, "n m *trailing"]: ...


@overload
def ntk(
    model: Model | Any,
    x: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    per_layer: Literal[True],
    backend: str | None = None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool | None = False,
) -> dict[str, np.ndarray]: ...


def ntk(
    model: Model | Any,
    x: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    outputs: Outputs = "trace",
    params: Selection = None,
    per_layer: bool = False,
    backend: str | None = None,
    method: str = "auto",
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool | None = False,
) -> Float[np.ndarray, "n m *trailing"] | dict[str, np.ndarray]:
    """The empirical neural tangent kernel Theta[i,j,a,b] = sum_p J[i,a,p] J[j,b,p], reduced over outputs.

    Args:
        model: the network, evaluated in inference mode. Any `torch.nn.Module` will do too, without translation: by the
            plain method, over the parameters that require a gradient, a shared one counted once.
        x: samples (n, *D), of the model's dtype.
        x2: samples (m, *D) for a cross kernel; None means `x`.
        outputs: an int k (Theta[:, :, k, k], counted from 0), "trace" (default), "mean" (trace / O), "sum" (kernel of
            the summed output), "diagonal" or "full".
        params: which parameters the kernel sums over: None for all, names or glob patterns ("3.*", "*.bias"), "readout"
            (the last layer with parameters) or "hidden" (all before it).
        per_layer: give the parts of the layers, which sum to the whole.
        backend: as for `udlbridge.outputs`.
        method: "structured" never forms the Jacobian: each layer multiplies Gram matrices of its inputs and
            backpropagated errors, or its per-sample gradients, whichever costs less (`udlbridge.backends.rules`);
            "plain" multiplies per-sample Jacobians; "auto" is "structured", which every layer has and which never costs
            more.
        memory: bound of the working memory, as "2GB": what is held besides the samples and the result; for a module,
            besides its activations for up to 256 samples too.
        threads: for the engine's BLAS; None leaves it alone.
        device: where torch computes: "cpu", "cuda", "mps".
        progress: show a bar; None means: if standard error is a terminal.

    Returns:
        (n, m), (n, m, O) for "diagonal" or (n, m, O, O) for "full", of the model's dtype. With
        `per_layer`, a dict of such arrays by the number of the layer, as text.

    Raises:
        As `udlbridge.outputs`; OutputsError for a reduction that does not exist; ParameterError for a pattern that
        matches nothing; ConversionError for a module whose outputs are random, depend on the batch, or are no tensor;
        OptionError for a method that does not exist, too little memory, threads below 1.

    Source: Jacot, Gabriel, Hongler (2018); structured form: Novak, Sohl-Dickstein, Schoenholz (2022).
    """
    if not isinstance(model, Model):
        return _module_kernel(model, x, x2, outputs, params, per_layer, backend, method, memory, threads, device)
    threads = thread_count(threads)
    rows = checked_batch(model, x)
    columns = rows if x2 is None else checked_batch(model, x2, "x2")
    if columns.shape[1:] != rows.shape[1:]:
        raise ShapeError(
            f"the samples of x2 have shape {columns.shape[1:]}, those of x {rows.shape[1:]}",
            allowed="the same shape",
            remedy="prepare both in the same way",
        )
    chosen = reduction(outputs, output_size(model, rows))
    name = backends.checked_name(backends.default_name() if backend is None else backend)
    other = None if x2 is None else len(columns)
    names = selected_parameters(model, params)
    made = make_plan(model, rows.shape[1:], chosen, len(rows), other, name, method, memory, threads, params=names)
    device = backends.checked_device(name, device)
    engine = backends.get(name)
    entries = prod(chosen.trailing)

    job = KernelJob(model, chosen, made.method, threads, device, names)
    tiles = TileComputer(engine, job, rows, None if x2 is None else columns, made.grid, made.kept_blocks)
    parts = names_by_layer(names) if per_layer else {"": names}
    results = {part: np.empty((made.n, made.m, *chosen.trailing), dtype=model.dtype) for part in parts}
    buffer = np.empty(min(made.tile, made.n) * min(made.tile, made.m) * entries, dtype=model.dtype)
    with kernel_progress(made.flops, show=progress) as advance, tiles as computer:
        for tile in made.grid.tiles():
            # A tile in one piece: engines write it straight, and its mirror image is read while it is in the cache.
            shape = (*tile.shape, *chosen.trailing)
            block = buffer[: tile.shape[0] * tile.shape[1] * entries].reshape(shape)
            for part, own in parts.items():
                computer.compute(tile, block, own)
                place(results[part], tile, block, symmetric=made.symmetric)
            advance(made.flops * tile.shape[0] * tile.shape[1] / made.grid.pairs, 0)
    return results if per_layer else results[""]


def _module_kernel(
    module: object,
    x: np.ndarray,
    x2: np.ndarray | None,
    outputs: Outputs,
    params: Selection,
    per_layer: bool,
    backend: str | None,
    method: str,
    memory: int | str,
    threads: int | None,
    device: str,
) -> np.ndarray:
    """The kernel of a `torch.nn.Module`, which only torch and the plain method can compute."""
    # Whoever has a module has imported torch: there is no need to import it to know that this is none.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(module, torch.nn.Module):
        raise OptionError(
            f"a {type(module).__name__} in the place of the model",
            allowed="a udlbridge.Model or a torch.nn.Module",
            remedy="describe the network with ub.Model([...])",
        )
    if backend is not None:
        backends.checked_name(backend)
    chosen_method(method)
    thread_count(threads)
    bound = parse_bytes(memory)
    if backend not in (None, "torch") or method == "structured" or per_layer:
        raise OptionError(
            f"backend={backend!r}, method={method!r}, per_layer={per_layer} for a torch.nn.Module",
            allowed="backend='torch' and method='plain', without per_layer",
            remedy="translate the module: ub.from_torch(module)",
        )
    from udlbridge.backends.pytorch.modules import module_kernel

    return module_kernel(module, x, x2, outputs, params, bound, threads, device)
