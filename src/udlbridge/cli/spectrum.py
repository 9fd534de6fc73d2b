"""`udlbridge spectrum`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from udlbridge.cli.common import (
    UserPath,
    count_option,
    data_option,
    json_option,
    load_array,
    outputs_option,
    params_option,
    report,
    selection,
    write_json,
)
from udlbridge.cli.networks import (
    dtype_option,
    load_model,
    model_option,
    output_option,
    samples,
    samples_option,
    shape_option,
)


@click.command()
@click.argument("kernel_file", type=UserPath(exists=True, path_type=Path), required=False)
@model_option
@output_option
@count_option(1000, "Number of samples, for --model.")
@outputs_option
@params_option
@click.option("--backend", default=None, help="torch, julia or reference, for --model. [UDLBRIDGE_BACKEND]")
@dtype_option
@click.option("--k", default=20, show_default=True, help="Largest eigenvalues, where not all are computed.")
@click.option("--rank", default=None, type=int, help="A bound of the rank of KERNEL_FILE: P for one output.")
@click.option("--dense-limit", default=None, type=int, help="Bytes up to which all are computed. [default: 2^30]")
@click.option("--max-products", default=500, show_default=True, help="Where Lanczos stops in any case.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=None, help="Draw the same start vector again. [default: anew]"
)
@click.option("--threads", type=int, default=None, help="Threads of the BLAS.")
@click.option("--quiet", is_flag=True, help="No progress.")
@shape_option
@samples_option
@data_option
@json_option
def command(
    kernel_file: Path | None,
    model_name: str,
    output: str | None,
    n: int,
    outputs: str,
    params: tuple[str, ...],
    backend: str | None,
    dtype: str | None,
    k: int,
    rank: int | None,
    dense_limit: int | None,
    max_products: int,
    seed: int | None,
    threads: int | None,
    quiet: bool,
    shape: str | None,
    samples_file: Path | None,
    folder: Path | None,
    json_file: Path | None,
) -> int:
    """Eigenvalues of a kernel and the verdict on its positivity: PSD, rounding, not PSD.

    The kernel is read from KERNEL_FILE, a .npy file or a .zarr store, in blocks; without a file it is that of --model
    on the first N samples, by products with vectors where it does not fit: it is never stored. The exit code is 0 for
    PSD and for rounding, else 1.
    """
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
    if kernel_file is None:
        model = load_model(model_name, dtype, output)
        result = spectrum(
            model,
            x=samples(model, n, folder, shape, samples_file),
            outputs=outputs,
            params=selection(params),
            backend=backend,
            **options,
        )
    elif kernel_file.is_dir():
        from udlbridge.store.kernel_store import KernelStore

        store = KernelStore(kernel_file)
        result = spectrum(store, **options)
    else:
        kernel = load_array(kernel_file, "a file that `udlbridge kernel` wrote", mapped=True)
        result = spectrum(kernel, **options)
    report(str(result), json_file)
    if json_file is not None:
        write_json(result.to_dict(), json_file)
    return 0 if result.verdict in (PSD, ROUNDING) else 1
