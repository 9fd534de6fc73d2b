"""`udlbridge predict`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from udlbridge.cli.common import UserPath, data_option, json_option, outputs_option, report, write_json
from udlbridge.cli.networks import dtype_option, load_model, model_option, output_option


@click.command()
@model_option
@output_option
@click.option("--train", "n", default=1000, show_default=True, type=click.IntRange(min=2), help="Training images.")
@click.option("--test", "m", default=1000, show_default=True, type=click.IntRange(min=1), help="Test images.")
@outputs_option
@click.option("--backend", default=None, help="torch, julia or reference. [UDLBRIDGE_BACKEND]")
@dtype_option
@click.option("--diag-reg", default=1e-3, show_default=True, help="Regularisation, relative to the mean diagonal.")
@click.option("--tolerance", default=1e-4, show_default=True, help="Residual of the solver, relative to the targets.")
@click.option("--memory", default="2GB", show_default=True, help="Bound of the working memory.")
@click.option("--store", "target", type=UserPath(path_type=Path), help="A .zarr store for the kernel: made or used.")
@click.option("--state", type=UserPath(path_type=Path), help="A .safetensors file to resume the solver from.")
@click.option("--quiet", is_flag=True, help="No progress.")
@data_option
@json_option
def command(
    model_name: str,
    output: str | None,
    n: int,
    m: int,
    outputs: str,
    backend: str | None,
    dtype: str | None,
    diag_reg: float,
    tolerance: float,
    memory: str,
    target: Path | None,
    state: Path | None,
    quiet: bool,
    folder: Path | None,
    json_file: Path | None,
) -> int:
    """Classify MNIST by ridge regression with the kernel of a network: one-hot targets, conjugate gradients.

    With --store the kernel is computed into a store, or read from it; without, products with it are taken by autodiff,
    in float64, and it is never formed.
    """
    import numpy as np

    from udlbridge import data
    from udlbridge.kernels.operators import ntk_operator
    from udlbridge.predict.classification import centred_targets, predicted_outputs
    from udlbridge.predict.solvers import solve
    from udlbridge.store.computing import compute_kernel

    model = load_model(model_name, dtype, output)
    x, labels = data.mnist("train", n=n, folder=folder)
    x_test, test_labels = data.mnist("test", n=m, folder=folder)
    x, x_test = x.astype(model.dtype), x_test.astype(model.dtype)
    progress = False if quiet else None
    start = time.perf_counter()
    kernel: Any
    if target is None:
        kernel = ntk_operator(model, x, outputs=outputs, backend=backend)
    else:
        kernel = compute_kernel(
            model, x, target, outputs=outputs, backend=backend, memory=memory, resume=True, progress=progress
        )
    prepared = time.perf_counter() - start
    found = solve(
        kernel, centred_targets(labels, 10), diag_reg=diag_reg, tolerance=tolerance, memory=memory, state=state,
        progress=progress,
    )  # fmt: skip
    solved = time.perf_counter() - start - prepared
    scores = predicted_outputs(model, x_test, x, found.coefficients, outputs=outputs, backend=backend, memory=memory)
    wrong = float(np.mean(scores.argmax(axis=1) != test_labels))
    seconds = time.perf_counter() - start
    report(
        f"{n:,} training and {m:,} test images, outputs={outputs}, diag_reg={diag_reg:g}\n"
        f"{found.iterations} iterations with a preconditioner of rank {found.rank}, "
        f"residual {float(found.residuals.max()):.1e}\n"
        f"test error {wrong:.2%}\n"
        f"{seconds:.1f} s: kernel {prepared:.1f}, solver {solved:.1f}, prediction {seconds - prepared - solved:.1f}",
        json_file,
    )
    if json_file is not None:
        figures = {"train": n, "test": m, "outputs": outputs, "test_error": wrong, "seconds": seconds}
        write_json({**figures, "kernel_seconds": prepared, "solver_seconds": solved, **found.to_dict()}, json_file)
    return 0
