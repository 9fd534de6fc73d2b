"""`udlbridge kernel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import (
    backend_option,
    device_option,
    every_outputs_option,
    params_option,
    quiet_option,
    resumable,
    selection,
)
from udlbridge.cli.executors import check_executor, executor_options, opened
from udlbridge.cli.fitting import read
from udlbridge.cli.networks import (
    dtype_option,
    load_model,
    model_option,
    output_option,
    seed_option,
)
from udlbridge.cli.pages import report_option, write_page
from udlbridge.cli.sample_files import Named, NamedArray, load_array
from udlbridge.cli.samples import Samples, sample_options
from udlbridge.cli.targets import StorePath, check_new, force_option, forced, json_option, report, write_json
from udlbridge.texts import counted

if TYPE_CHECKING:
    import numpy as np

    from udlbridge.backends.reduction import Outputs
    from udlbridge.store.files import Url
    from udlbridge.words import StorageWord

SHOWN = 200
"""Samples of a kernel that the picture in its page shows."""


@click.command(
    short_help="Compute a kernel and write it to a file or store.",
    epilog="Example: udlbridge kernel --model lenet5 --n 2000 --outputs 0 --out K.zarr",
)
@model_option
@output_option
@sample_options(1000)
@click.option(
    "--samples2",
    "columns",
    type=NamedArray(),
    metavar="FILE[:KEY]",
    help="Other samples, for a cross kernel (n, m) in a .npy file.",
)
@seed_option
@every_outputs_option
@params_option
@backend_option()
@dtype_option
@click.option(
    "--method",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "structured", "plain"]),
    metavar="NAME",
    help="auto, structured or plain.",
)
@click.option(
    "--out",
    "target",
    type=StorePath(path_type=Path, written=True),
    metavar="FILE",
    help="A .npy file, or a .zarr store for any size, also as s3://bucket/K.zarr.  [required without --plan]",
)
@click.option("--memory", default="2GB", show_default=True, metavar="BYTES", help="Bound of the working memory.")
@click.option("--threads", type=int, default=None, metavar="NUMBER", help="Threads of the engine's BLAS.")
@device_option
@click.option(
    "--storage", default=None, metavar="DTYPE", help="How a store keeps entries: float32, float64, float16, bfloat16."
)
@executor_options
@click.option("--resume", is_flag=True, help="Resume an interrupted store.")
@click.option("--plan", "only_plan", is_flag=True, help="Print what it will cost, and stop.")
@click.option(
    "--verify",
    "verified",
    default=0,
    type=click.IntRange(min=0),
    metavar="K",
    help="Compute K random tiles of a store again in float64.",
)
@quiet_option
@json_option
@report_option
@force_option
def command(
    model_name: str,
    output: str | None,
    sample_options: Samples,
    columns: Named | None,
    seed: int,
    outputs: Outputs,
    params: tuple[str, ...],
    backend: str | None,
    dtype: str | None,
    method: str,
    target: Path | Url | None,
    memory: str,
    threads: int | None,
    device: str | None,
    storage: StorageWord | None,
    executor_name: str | None,
    dask: str | None,
    resume: bool,
    only_plan: bool,
    verified: int,
    quiet: bool,
    json_file: Path | None,
    html: Path | None,
) -> int:
    """Compute the kernel of a network on the first N samples and write it to a file.

    A .npy file holds the whole square and has to fit into memory. A .zarr store holds the lower triangle in tiles: it
    may be of any size, is written while it is computed, into a folder or to a URL, and can be resumed.
    """
    from udlbridge.kernels.planning import plan
    from udlbridge.networks.model import Model

    check_executor(executor_name, dask)
    model = load_model(model_name, dtype, output, seed)
    shared: dict[str, Any] = {
        "outputs": outputs,
        "params": selection(params),
        "backend": backend,
        "method": method,
        "memory": memory,
        "threads": threads,
        "device": device,
    }
    if only_plan:
        from udlbridge import backends
        from udlbridge.networks.inputs import checked_samples

        # What an engine needs can be told without it, but not how fast it would be here.
        state = backends.availability(backend or backends.default_name())
        sizes, n = sample_options.sizes(model), sample_options.count
        if isinstance(sample_options.source, Named):
            # As many as the file has, or as many as are asked for: there may be more of them than in this file.
            batch = checked_samples(model, replace(sample_options, n=None).of(model))
            sizes, n = batch.shape[1:], sample_options.n or len(batch)
        elif sizes is None:
            sample_options.check_count(model)
        planned = plan(model, n, sample_shape=sizes, **shared, calibrate=state.ok)
        report(f"{planned}" if state.ok else f"{planned}\ntime     not predicted: {state.reason}", json_file)
        if html is not None:
            write_page(html, f"{planned}", {"Plan": planned.as_rows()}, {}, json_file)
        if json_file is not None:
            write_json(planned.to_dict(), json_file)
        return 0
    if target is None:
        raise click.UsageError("--out is missing: a .npy file, or a .zarr store")
    progress = False if quiet else None
    suffix = PurePosixPath(target).suffix
    if suffix not in (".npy", ".zarr"):
        raise click.UsageError(f"--out {target} ends in {suffix or 'nothing'}: a .npy file, or a .zarr store")
    if suffix == ".npy":
        if not isinstance(target, Path):
            raise click.UsageError(f"--out {target} is a URL, where a .zarr store may be; a .npy file wants a path")
        check_new(target, "--out")
        for given, option in (
            (resume, "--resume"),
            (storage, "--storage"),
            (verified, "--verify"),
            (executor_name, "--executor"),
            (dask, "--dask"),
        ):
            if given:
                raise click.UsageError(f"{option} is for stores: --out {target.with_suffix('.zarr')}")
        from udlbridge.networks.inputs import checked_samples, plausible_shape
        from udlbridge.store.array_files import check_fits, write_array

        sample_options.check_count(model)
        named = isinstance(sample_options.source, Named)
        likely = (
            (sample_options.sizes(model) or plausible_shape(model)) if isinstance(model, Model) else model.sample_shape
        )
        if likely is not None and not named and columns is None:  # before so many samples are made
            check_fits(model, likely, (sample_options.count, sample_options.count), outputs, target)
        x = checked_samples(model, sample_options.of(model))
        options = {**shared, "progress": progress}
        if columns is not None:
            labels = sample_options.labels
            without = None if labels is None else replace(labels, path=columns.path)  # a column of the same name
            other = read(columns, model, cast=sample_options.cast, without=without)
            options["x2"] = checked_samples(model, other, "x2")
        check_fits(model, x.shape[1:], (len(x), len(options.get("x2", x))), outputs, target)
        whole = "a .npy file is written when all of it is computed; a store keeps what is finished, and resumes"
        with resumable(f"{whole}: --out {target.with_suffix('.zarr')}"):
            figures = write_array(model, x, target, options)
        report(
            f"wrote {target}: {tuple(figures['shape'])} {figures['dtype']}, {figures['bytes']:,} bytes\n"
            f"{figures['seconds']:.1f} s",
            json_file,
        )
        if html is not None:
            kernel = load_array(target, "the array just written", mapped=True)
            _write_kernel(html, target, kernel, figures, json_file)
        if json_file is not None:
            write_json(figures, json_file)
        return 0
    if columns is not None:
        raise click.UsageError("--samples2 is for arrays: --out FILE.npy")
    from udlbridge.options import show_bytes
    from udlbridge.store.computing import compute_kernel

    x = sample_options.of(model)
    stopped = resumable("the tiles that are finished stay: go on with the same command and --resume")
    with stopped, opened(executor_name, dask, threads) as (executor, own):
        store = compute_kernel(
            model,
            x,
            target,
            **{**shared, "threads": own},
            executor=executor,
            storage=storage,
            resume=resume,
            overwrite=forced(),
            progress=progress,
        )
    run = store.manifest["actual"][-1]
    predicted = run["predicted_seconds"]
    narrow = store.manifest["storage"] != store.manifest["dtype"]
    report(
        f"wrote {target}: {store.shape} {store.manifest['storage']}, {counted(run['tiles'], 'tile')}, "
        f"{show_bytes(store.stored_bytes())}{' on disk' if isinstance(target, Path) else ''}\n"
        f"{run['seconds']:.1f} s"
        + (f" (predicted {predicted:.1f} s)" if predicted else "")
        + f", {run['gflops']:.0f} GFLOP/s, peak memory {show_bytes(run['peak_rss_over_baseline'])} over the baseline"
        + (f"\nstorage error {store.manifest['storage_error']:.2e} of a tile's largest entry" if narrow else ""),
        json_file,
    )
    if verified:
        worst = store.compare_with_float64(verified)
        report(
            f"{counted(verified, 'random tile')} against float64: worst difference {worst:.2e} of the largest entry",
            json_file,
        )
    if html is not None:
        corner = store[: min(SHOWN, store.shape[0]), : min(SHOWN, store.shape[1])]
        _write_kernel(html, target, corner, {"shape": store.shape, **run}, json_file)
    if json_file is not None:
        write_json(store.manifest, json_file)
    return 0


def _write_kernel(
    html: Path, target: Path | Url, kernel: np.ndarray, facts: Mapping[str, Any], json_file: Path | None
) -> None:
    """The page of a kernel: its figures, and a picture of its first samples, of the first output if it has several."""
    from udlbridge.plots.kernels import draw_kernel
    from udlbridge.plots.style import figure

    shown = kernel[:SHOWN, :SHOWN]
    parts = shown.reshape(*shown.shape[:2], -1)
    shown, count = parts[..., 0], parts.shape[2]
    title = f"first {shown.shape[0]} by {counted(shown.shape[1], 'sample')}" + (
        f", the first of {count} kernels" * (count > 1)
    )
    with figure(6.5, 5.5) as (drawn, ax):
        draw_kernel(ax, shown, title)
    rows = [{"figure": name, "value": value} for name, value in facts.items()]
    write_page(html, f"wrote {target}", {"Computation": rows}, {f"Kernel, {title}": drawn}, json_file)
