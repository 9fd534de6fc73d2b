"""`udlbridge spectrum`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from udlbridge.cli.common import (
    backend_option,
    device_option,
    one_outputs_option,
    params_option,
    quiet_option,
    resumable,
    selection,
)
from udlbridge.cli.executors import check_executor_of_store, executor_options, opened
from udlbridge.cli.networks import (
    dtype_option,
    load_model,
    model_option,
    output_option,
)
from udlbridge.cli.pages import report_option
from udlbridge.cli.sample_files import load_array
from udlbridge.cli.samples import Samples, sample_options
from udlbridge.cli.targets import StorePath, force_option, json_option, report, write_json

if TYPE_CHECKING:
    from udlbridge.backends.reduction import Outputs
    from udlbridge.store.files import Url
    from udlbridge.words import EngineWord

OF_A_KERNEL = {
    "--k", "--rank", "--dense-limit", "--max-products", "--seed", "--threads",
    "--executor", "--dask", "--quiet", "--json", "--report", "--force",
}  # fmt: skip
"""Options that say something of KERNEL_FILE too; the others say which kernel is computed."""


@click.command(
    short_help="Find eigenvalues, and whether a kernel is PSD.",
    epilog="Example: udlbridge spectrum K.zarr --k 50 --report spectrum.html",
)
@click.argument("kernel_file", type=StorePath(exists=True, path_type=Path), required=False)
@model_option
@output_option
@sample_options(1000)
@one_outputs_option
@params_option
@backend_option()
@device_option
@dtype_option
@click.option(
    "--k", default=20, show_default=True, metavar="NUMBER", help="Largest eigenvalues, where not all are computed."
)
@click.option(
    "--rank", default=None, type=int, metavar="P", help="A bound of the rank of KERNEL_FILE: P for one output."
)
@click.option(
    "--dense-limit", default=None, type=int, metavar="BYTES", help="Bytes up to which all are computed. [default: 2^30]"
)
@click.option(
    "--max-products", default=500, show_default=True, metavar="NUMBER", help="Where Lanczos stops in any case."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=None,
    metavar="NUMBER",
    help="Of the start vector, and of the weights of a network by name.  [default: anew; 0]",
)
@click.option("--threads", type=int, default=None, metavar="NUMBER", help="Threads of the BLAS.")
@executor_options
@quiet_option
@json_option
@report_option
@force_option
def command(
    kernel_file: Path | Url | None,
    model_name: str,
    output: str | None,
    sample_options: Samples,
    outputs: Outputs,
    params: tuple[str, ...],
    backend: EngineWord | None,
    device: str | None,
    dtype: str | None,
    k: int,
    rank: int | None,
    dense_limit: int | None,
    max_products: int,
    seed: int | None,
    threads: int | None,
    executor_name: str | None,
    dask: str | None,
    quiet: bool,
    json_file: Path | None,
    html: Path | None,
) -> int:
    """Eigenvalues of a kernel and the verdict on its positivity: PSD, rounding, not PSD.

    The kernel is read from KERNEL_FILE, a .npy file or a .zarr store, in blocks; without a file it is that of --model
    on the first N samples, by products with vectors where it does not fit: it is never stored. The exit code is 0 for
    PSD and for rounding, else 1.
    """
    from udlbridge.analysis.inputs import not_a_matrix
    from udlbridge.analysis.spectra import DENSE_LIMIT, spectrum
    from udlbridge.analysis.verdicts import PSD, ROUNDING

    options: dict[str, Any] = {
        "k": k,
        "rank": rank,
        "dense_limit": DENSE_LIMIT if dense_limit is None else dense_limit,
        "max_products": max_products,
        "seed": seed,
        "threads": threads,
        "progress": False if quiet else None,
    }
    if kernel_file is not None:
        _check_options()
    in_a_file = isinstance(kernel_file, Path) and not kernel_file.is_dir()
    check_executor_of_store(executor_name, dask, kernel_file is not None and not in_a_file, "name one as KERNEL_FILE")
    if kernel_file is None:
        model = load_model(model_name, dtype, output, seed or 0)
        x = sample_options.of(model)
        kept = (
            "nothing of it is kept; `udlbridge kernel --out K.zarr` resumes, and `udlbridge spectrum K.zarr` reads it"
        )
        with resumable(kept):
            result = spectrum(
                model,
                x=x,
                outputs=outputs,
                params=selection(params),
                backend=backend,
                device=device,
                **options,
            )
    elif not in_a_file:
        from udlbridge.store.kernel_store import KernelStore

        with opened(executor_name, dask, threads) as (executor, _):
            result = spectrum(KernelStore(kernel_file, executor=executor), **options)
    else:
        kernel = load_array(Path(kernel_file), "a file that `udlbridge kernel` wrote", mapped=True)
        if kernel.ndim < 2 or kernel.shape[0] != kernel.shape[1]:
            raise not_a_matrix(f"{kernel_file} has", kernel.shape, str(kernel_file))
        result = spectrum(kernel, **options)
    report(str(result), json_file)
    if html is not None:
        from udlbridge.cli.pages import write_page
        from udlbridge.plots.kernels import draw_spectrum
        from udlbridge.plots.style import SIZE, figure

        with figure(*SIZE) as (drawn, ax):
            draw_spectrum(ax, {"eigenvalues": result}, f"spectrum: {result.verdict}")
        write_page(html, str(result), {"Eigenvalues": result.as_rows()}, {"Spectrum": drawn}, json_file)
    if json_file is not None:
        write_json(result.to_dict(), json_file)
    return 0 if result.verdict in (PSD, ROUNDING) else 1


def _check_options() -> None:
    """Refuse options of a network beside KERNEL_FILE, which would change nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and isinstance(option, click.Option) and OF_A_KERNEL.isdisjoint(option.opts):
            raise click.UsageError(
                f"{option.opts[0]} is for kernels of a network, and KERNEL_FILE holds one: leave one out"
            )
