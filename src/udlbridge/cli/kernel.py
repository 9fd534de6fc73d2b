"""`udlbridge kernel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from udlbridge.cli.common import (
    UserPath,
    count_option,
    data_option,
    json_option,
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
    parsed_shape,
    samples,
    samples_option,
    shape_option,
)


@click.command()
@model_option
@output_option
@count_option(1000, "Number of samples.")
@outputs_option
@params_option
@click.option("--backend", default=None, help="torch, julia or reference. [UDLBRIDGE_BACKEND]")
@dtype_option
@click.option("--method", default="auto", show_default=True, help="auto, structured or plain.")
@click.option("--out", "target", type=UserPath(path_type=Path), help="A .npy file, or a .zarr store for any size.")
@click.option("--memory", default="2GB", show_default=True, help="Bound of the working memory.")
@click.option("--threads", type=int, default=None, help="Threads of the engine's BLAS.")
@click.option("--device", default=None, help="Where torch computes: cpu, cuda, mps.  [default: cpu]")
@click.option("--storage", default=None, help="How a store keeps entries: float32, float64, float16, bfloat16.")
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
@click.option("--quiet", is_flag=True, help="No progress bar.")
@shape_option
@samples_option
@data_option
@json_option
def command(
    model_name: str,
    output: str | None,
    n: int,
    outputs: str,
    params: tuple[str, ...],
    backend: str | None,
    dtype: str | None,
    method: str,
    target: Path | None,
    memory: str,
    threads: int | None,
    device: str | None,
    storage: str | None,
    resume: bool,
    only_plan: bool,
    verified: int,
    quiet: bool,
    shape: str | None,
    samples_file: Path | None,
    folder: Path | None,
    json_file: Path | None,
) -> int:
    """Compute the kernel of a network on the first N samples and write it to a file.

    A .npy file holds the whole square and has to fit into memory. A .zarr store holds the lower triangle in tiles: it
    may be of any size, is written while it is computed, and can be resumed.
    """
    from udlbridge.kernels.planning import plan
    from udlbridge.networks.model import Model

    model = load_model(model_name, dtype, output)
    shared: dict[str, Any] = {
        "outputs": outputs,
        "params": selection(params),
        "backend": backend,
        "method": method,
        "memory": memory,
        "threads": threads,
    }
    if only_plan:
        from udlbridge import backends
        from udlbridge.networks.inputs import checked_samples

        # What an engine needs can be told without it, but not how fast it would be here.
        state = backends.availability(backend or backends.default_name())
        sizes = None if shape is None else parsed_shape(shape)
        if samples_file is not None:
            sizes = checked_samples(model, samples(model, 3, folder, shape, samples_file)).shape[1:]
        planned = plan(model, n, sample_shape=sizes, **shared, calibrate=state.ok)
        report(f"{planned}" if state.ok else f"{planned}\ntime     not predicted: {state.reason}", json_file)
        if json_file is not None:
            write_json(planned.to_dict(), json_file)
        return 0
    if target is None:
        raise click.UsageError("--out is missing: a .npy file, or a .zarr store")
    progress = False if quiet else None
    if target.suffix not in (".npy", ".zarr"):
        raise click.UsageError(f"--out {target} ends in {target.suffix or 'nothing'}: a .npy file, or a .zarr store")
    if target.suffix == ".npy":
        for given, option in ((resume, "--resume"), (storage, "--storage"), (verified, "--verify")):
            if given:
                raise click.UsageError(f"{option} is for stores: --out {target.with_suffix('.zarr')}")
        from udlbridge.store.array_files import check_target, write_array

        if isinstance(model, Model):
            check_target(model, n, outputs, target)
        options = {**shared, "device": device or "cpu", "progress": progress}
        figures = write_array(model, samples(model, n, folder, shape, samples_file), target, options)
        report(
            f"wrote {target}: {tuple(figures['shape'])} {figures['dtype']}, {figures['bytes']:,} bytes\n"
            f"{figures['seconds']:.1f} s",
            json_file,
        )
        if json_file is not None:
            write_json(figures, json_file)
        return 0
    x = samples(model, n, folder, shape, samples_file)
    from udlbridge.options import show_bytes
    from udlbridge.store.computing import compute_kernel

    store = compute_kernel(model, x, target, **shared, device=device, storage=storage, resume=resume, progress=progress)
    run = store.manifest["actual"][-1]
    predicted = run["predicted_seconds"]
    narrow = store.manifest["storage"] != store.manifest["dtype"]
    report(
        f"wrote {target}: {store.shape} {store.manifest['storage']}, {run['tiles']} tiles, "
        f"{show_bytes(store.stored_bytes())} on disk\n"
        f"{run['seconds']:.1f} s"
        + (f" (predicted {predicted:.1f} s)" if predicted else "")
        + f", {run['gflops']:.0f} GFLOP/s, peak memory {show_bytes(run['peak_rss_over_baseline'])} over the baseline"
        + (f"\nstorage error {store.manifest['storage_error']:.2e} of a tile's largest entry" if narrow else ""),
        json_file,
    )
    if verified:
        worst = store.compare_with_float64(verified)
        report(f"{verified} random tiles against float64: worst difference {worst:.2e} of the largest entry", json_file)
    if json_file is not None:
        write_json(store.manifest, json_file)
    return 0
