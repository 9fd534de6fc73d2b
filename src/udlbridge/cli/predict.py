"""`udlbridge predict`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import (
    backend_option,
    check_used,
    data_option,
    device_option,
    one_outputs_option,
    quiet_option,
    resumable,
)
from udlbridge.cli.executors import check_executor_of_store, executor_options, opened
from udlbridge.cli.labelled import halves, labelled
from udlbridge.cli.labels import check_together, labels_option
from udlbridge.cli.networks import dtype_option, load_model, model_option, output_option, seed_option
from udlbridge.cli.pages import report_option, write_page
from udlbridge.cli.sample_files import Named, NamedArray
from udlbridge.cli.samples import as_images, cast_option
from udlbridge.cli.targets import StorePath, UserPath, force_option, json_option, old_or_new_file, report, write_json
from udlbridge.texts import counted

if TYPE_CHECKING:
    from udlbridge.backends.reduction import Outputs
    from udlbridge.store.files import Url
    from udlbridge.words import EngineWord

USUAL = 1000
"""Images of MNIST to learn from, and to test on."""


@click.command(
    short_help="Classify samples by regression with a kernel.",
    epilog="Example: udlbridge predict --model m.npz --samples shuffled.csv --labels shuffled.csv:kind",
)
@model_option
@output_option
@click.option(
    "--train",
    "n",
    type=click.IntRange(min=2),
    metavar="N",
    help="Number of training samples.  [default: 1000; of a file three quarters]",
)
@click.option(
    "--test",
    "m",
    type=click.IntRange(min=1),
    metavar="M",
    help="Number of test samples.  [default: 1000; of a file the others]",
)
@click.option(
    "--samples", "x_file", type=NamedArray(), metavar="FILE[:KEY]", help="Samples to learn from, in place of MNIST."
)
@labels_option
@click.option(
    "--samples2",
    "x2_file",
    type=NamedArray(),
    metavar="FILE[:KEY]",
    help="Test samples.  [default: those after the N first]",
)
@click.option("--labels2", "y2_file", type=NamedArray(), metavar="FILE[:KEY]", help="Their classes.")
@cast_option
@seed_option
@one_outputs_option
@backend_option()
@device_option
@dtype_option
@click.option(
    "--diag-reg",
    default=1e-3,
    show_default=True,
    metavar="NUMBER",
    help="Regularisation, relative to the mean diagonal.",
)
@click.option(
    "--tolerance",
    default=1e-4,
    show_default=True,
    metavar="NUMBER",
    help="Residual of the solver, relative to the targets.",
)
@click.option("--memory", default="2GB", show_default=True, metavar="BYTES", help="Bound of the working memory.")
@click.option(
    "--store",
    "target",
    type=StorePath(path_type=Path, written=True),
    metavar="FOLDER",
    help="A .zarr store for the kernel, or its URL: made or used.",
)
@executor_options
@click.option(
    "--state",
    type=UserPath(path_type=Path, written=True),
    metavar="FILE",
    callback=old_or_new_file,
    help="A .safetensors file to resume the solver from.",
)
@quiet_option
@data_option
@json_option
@report_option
@force_option
def command(
    model_name: str,
    output: str | None,
    n: int | None,
    m: int | None,
    x_file: Named | None,
    y_file: Named | None,
    x2_file: Named | None,
    y2_file: Named | None,
    cast: bool,
    seed: int,
    outputs: Outputs,
    backend: EngineWord | None,
    device: str | None,
    dtype: str | None,
    diag_reg: float,
    tolerance: float,
    memory: str,
    target: Path | Url | None,
    executor_name: str | None,
    dask: str | None,
    state: Path | None,
    quiet: bool,
    folder: Path | None,
    json_file: Path | None,
    html: Path | None,
) -> int:
    """Classify by ridge regression with the kernel of a network: one-hot targets, conjugate gradients.

    The samples are MNIST's images, or those of --samples with the classes of --labels.

    With --store the kernel is computed into a store, or read from it; without, products with it are taken by autodiff,
    in float64, and it is never formed. With --executor or --dask workers compute the store, and read it for the solver.
    """
    import numpy as np

    from udlbridge import data
    from udlbridge.kernels.operators import ntk_operator
    from udlbridge.networks.models import BY_NAME
    from udlbridge.predict.classification import centred_targets, predicted_outputs
    from udlbridge.predict.solvers import solve
    from udlbridge.store.computing import compute_kernel
    from udlbridge.store.kernel_store import KernelStore

    check_together(x_file, y_file)
    check_together(x2_file, y2_file, "2")
    check_used("folder", x_file is None, f"is the folder of MNIST's images, and --samples {x_file} has its own")
    check_used("cast", x_file is not None, "converts samples of a file, and none is named")
    check_used("seed", model_name in BY_NAME, "is of the weights of a network by name, and none is named")
    if x_file is None and x2_file is not None:
        raise click.UsageError("--samples2 wants --samples and --labels: classes are learned from them")
    check_executor_of_store(executor_name, dask, target is not None, "name one with --store")
    model = load_model(model_name, dtype, output, seed)
    if x_file is None or y_file is None:
        n, m = n or USUAL, m or USUAL
        x, labels = data.mnist("train", n=n, folder=folder, dtype=model.dtype.name)
        x = as_images(model, x)
        x_test, test_labels = data.mnist("test", n=m, folder=folder, dtype=model.dtype.name)
        x_test = x_test.reshape(-1, *x.shape[1:])
        classes = [str(digit) for digit in range(10)]
    else:
        x, labels, x_test, test_labels, classes = halves(
            labelled(x_file, y_file, model, cast=cast),
            None if x2_file is None or y2_file is None else labelled(x2_file, y2_file, model, cast=cast),
            n,
            m,
            named=y_file,
        )
        n, m = len(x), len(x_test)
    progress = False if quiet else None
    shared: dict[str, Any] = {"outputs": outputs, "backend": backend, "device": device}
    start = time.perf_counter()
    kernel: Any
    with opened(executor_name, dask, None) as (executor, threads):
        if target is None:
            kernel = ntk_operator(model, x, **shared)
        else:
            with resumable("the tiles that are finished stay: go on with the same command"):
                kernel = compute_kernel(
                    model, x, target, **shared, memory=memory, threads=threads, resume=True, executor=executor,
                    progress=progress,
                )  # fmt: skip
            kernel = KernelStore(target, model=model, memory=memory, executor=executor)
        prepared = time.perf_counter() - start
        advice = "add --state FILE to be able to go on" if state is None else "go on with the same command"
        with resumable(advice):
            found = solve(
                kernel, centred_targets(labels, len(classes)), diag_reg=diag_reg, tolerance=tolerance, memory=memory,
                state=state, progress=progress,
            )  # fmt: skip
    solved = time.perf_counter() - start - prepared
    scores = predicted_outputs(model, x_test, x, found.coefficients, **shared, memory=memory)
    wrong = float(np.mean(scores.argmax(axis=1) != test_labels))
    seconds = time.perf_counter() - start
    text = (
        f"{n:,} training and {m:,} test samples, outputs={outputs}, diag_reg={diag_reg:g}\n"
        f"{counted(found.iterations, 'iteration')} with a preconditioner of rank {found.rank}, "
        f"residual {float(found.residuals.max()):.1e}\n"
        f"test error {wrong:.2%}\n"
        f"{seconds:.1f} s: kernel {prepared:.1f}, solver {solved:.1f}, prediction {seconds - prepared - solved:.1f}"
    )
    report(text, json_file)
    if html is not None:
        from udlbridge.plots.predictions import draw_confusion
        from udlbridge.plots.style import figure

        with figure(6.0, 5.0) as (drawn, ax):
            draw_confusion(ax, scores.argmax(axis=1), test_labels, classes)
        write_page(html, text, {"Residuals": found.as_rows()}, {"Which class is taken for which": drawn}, json_file)
    if json_file is not None:
        figures = {
            "train": n,
            "test": m,
            "classes": classes,
            "outputs": outputs,
            "test_error": wrong,
            "seconds": seconds,
        }
        write_json({**figures, "kernel_seconds": prepared, "solver_seconds": solved, **found.to_dict()}, json_file)
    return 0
