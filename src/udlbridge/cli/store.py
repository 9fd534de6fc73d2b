"""`udlbridge store info|verify|append`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import Command, backend_option, quiet_option, resumable
from udlbridge.cli.executors import check_executor, executor_options, opened
from udlbridge.cli.fitting import read
from udlbridge.cli.labels import LEFT_OUT, check_left_out
from udlbridge.cli.networks import load_model, named_network, output_option
from udlbridge.cli.sample_files import Named, NamedArray
from udlbridge.cli.samples import cast_option
from udlbridge.cli.targets import StorePath, check_lasting, force_option, json_option, report, write_json
from udlbridge.texts import counted

if TYPE_CHECKING:
    from udlbridge.store.files import Url
    from udlbridge.store.kernel_store import KernelStore

path_argument = click.argument("path", type=StorePath(path_type=Path))


def network_options(command: Command) -> Command:
    """The module that a store is of, which it does not hold."""
    words = "The module that the store is of, which it does not hold: package.module:function or file.py:function."
    return click.option("--model", "model_name", metavar="NETWORK", callback=named_network, help=words)(
        output_option(command)
    )


def engine_options(command: Command) -> Command:
    """Where and how tiles are computed, and by whom; what is left out is as it was when the store was begun."""
    for option in (
        executor_options,
        click.option("--device", default=None, metavar="NAME", help="Where torch computes.  [default: as before]"),
        click.option("--threads", type=int, default=None, metavar="NUMBER", help="Threads of the engine's BLAS."),
        click.option(
            "--memory", default="2GB", show_default=True, metavar="BYTES", help="Bound of the working memory."
        ),
        backend_option("as before"),
    ):
        command = option(command)
    return command


@click.group(
    short_help="Look at, verify, repair, extend or upload a store.", epilog="Example: udlbridge store verify K.zarr"
)
def command() -> None:
    """Look at a kernel store, verify and repair it, append samples, or upload it.

    A store is a folder, or a URL as s3://bucket/K.zarr.
    """


@command.command(short_help="Print the manifest of a store as JSON.", epilog="Example: udlbridge store info K.zarr")
@path_argument
@json_option
@force_option
def info(path: Path | Url, json_file: Path | None) -> int:
    """Print what a store holds: its manifest as JSON."""
    from udlbridge.store.kernel_store import KernelStore

    store = KernelStore(path)
    write_json(store.manifest, json_file or Path("-"))
    return 0 if store.complete else 1


@command.command(
    short_help="Read every tile and its checksum.", epilog="Example: udlbridge store verify K.zarr --json verified.json"
)
@path_argument
@click.option("--repair", is_flag=True, help="Compute missing and damaged tiles again, with the options below.")
@network_options
@engine_options
@quiet_option
@json_option
@force_option
def verify(
    path: Path | Url,
    repair: bool,
    model_name: str | None,
    output: str | None,
    quiet: bool,
    json_file: Path | None,
    **engine: Any,
) -> int:
    """Read every tile and its checksum, the network and the samples; a module where it is named by --model.

    The exit code is 0 only if all are there and whole (in the end).
    """
    if not repair and (engine["executor_name"] or engine["dask"]):
        raise click.UsageError("--executor and --dask are for --repair: tiles are looked at here")
    return _verified(path, model_name, output, repair, quiet, json_file, engine)


@command.command(short_help="Compute damaged and missing tiles again.", epilog="Example: udlbridge store repair K.zarr")
@path_argument
@network_options
@engine_options
@quiet_option
@json_option
@force_option
def repair(
    path: Path | Url, model_name: str | None, output: str | None, quiet: bool, json_file: Path | None, **engine: Any
) -> int:
    """Compute missing and damaged tiles again: the same as verify --repair.

    The exit code is 0 only if all are there and whole in the end.
    """
    return _verified(path, model_name, output, True, quiet, json_file, engine)


def _verified(
    path: Path | Url,
    model_name: str | None,
    output: str | None,
    repair: bool,
    quiet: bool,
    json_file: Path | None,
    engine: dict[str, Any],
) -> int:
    """Look at every tile, compute those again that are not whole if asked to, and say so."""
    with _working(path, model_name, output, engine) as (store, options):
        found = store.verify()
        good = f"{counted(found.good, 'tile')} {'is' if found.good == 1 else 'are'} whole"
        said = [f"{good}, {len(found.damaged)} damaged, {len(found.missing)} missing"]
        for name, tiles in (("damaged", found.damaged), ("missing", found.missing)):
            said += [f"  {name}: tile ({row}, {column})" for row, column in tiles[:10]]
        said += [f"  {problem}" for problem in found.inputs]
        computed, ok = 0, found.ok and store.complete
        if found.ok and not store.complete and not repair:
            said.append("  but the computation was interrupted before it said so: finish it with --repair")
        report("\n".join(said), json_file)
        if repair:
            with resumable(f"the tiles that are finished stay: go on with `udlbridge store repair {path}`"):
                computed = store.repair(**options, progress=False if quiet else None)
            report(f"computed {counted(computed, 'tile')} again", json_file)
            ok = store.verify().ok
    if json_file is not None:
        whole = {"good": found.good, "damaged": found.damaged, "missing": found.missing, "inputs": found.inputs}
        write_json({"ok": ok, **whole, "computed": computed}, json_file)
    return 0 if ok else 1


@command.command(
    short_help="Append the samples of a file.", epilog="Example: udlbridge store append K.zarr more.npz:images"
)
@path_argument
@click.argument("samples", type=NamedArray(), metavar="[FILE[:KEY]]", required=False)
@click.option("--samples", "named", type=NamedArray(), metavar="FILE[:KEY]", help="The same as the argument FILE.")
@click.option("--labels", type=NamedArray(), metavar="FILE:KEY", help=LEFT_OUT)
@cast_option
@network_options
@engine_options
@quiet_option
@json_option
@force_option
def append(
    path: Path | Url,
    samples: Named | None,
    named: Named | None,
    labels: Named | None,
    cast: bool,
    model_name: str | None,
    output: str | None,
    quiet: bool,
    json_file: Path | None,
    **engine: Any,
) -> int:
    """Append the samples (m, *D) of a file: .npy, .npz, .csv, .parquet or .safetensors; only new rows are computed."""
    source = samples or named
    if source is None or (samples is not None and named is not None):
        raise click.UsageError("name one file with samples")
    check_left_out(source, labels)
    with _working(path, model_name, output, engine) as (store, options):
        x = read(source, store.model(), cast=cast, without=labels, fixed=True)
        with resumable(f"finish it with `udlbridge store repair {path}`"):
            store.append(x, **options, progress=False if quiet else None)
    report(f"{path} is now {store.shape}", json_file)
    if json_file is not None:
        write_json(store.manifest, json_file)
    return 0


@command.command(
    short_help="Copy a finished store to a URL.", epilog="Example: udlbridge store upload K.zarr s3://bucket/K.zarr"
)
@path_argument
@click.argument("url", metavar="URL")
@json_option
@force_option
def upload(path: Path | Url, url: str, json_file: Path | None) -> int:
    """Copy a finished store to s3://, gs:// or az:// and BUCKET/NAME, where nothing else is; to be read from there.

    Who asks, and where, is read from the environment: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like.
    """
    from udlbridge.options import show_bytes
    from udlbridge.store.kernel_store import KernelStore

    check_lasting(url)
    there = KernelStore(path).upload(url)
    report(
        f"copied {path} to {there.path}: {there.shape} {there.manifest['storage']}, "
        f"{counted(there.grid.count, 'tile')}, {show_bytes(there.stored_bytes())}",
        json_file,
    )
    if json_file is not None:
        write_json(there.manifest, json_file)
    return 0


@contextmanager
def _working(
    path: Path | Url, model_name: str | None, output: str | None, engine: dict[str, Any]
) -> Iterator[tuple[KernelStore, dict[str, Any]]]:
    """The store, with the module that it is of and with workers, if they were named; and the options of the engine."""
    from udlbridge.store.kernel_store import KernelStore

    named = {name: engine[name] for name in ("executor_name", "dask")}
    check_executor(**named)
    model = None if model_name is None else load_model(model_name, None, output)
    with opened(**named, threads=engine["threads"]) as (executor, threads):
        options = {name: engine[name] for name in ("backend", "memory", "device")}
        yield KernelStore(path, model=model, executor=executor), {**options, "threads": threads}
