"""`udlbridge store info|verify|append`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import Command, UserPath
from udlbridge.cli.networks import load_model, load_samples, output_option

if TYPE_CHECKING:
    from udlbridge.store.kernel_store import KernelStore

path_argument = click.argument("path", type=UserPath(path_type=Path))


def network_options(command: Command) -> Command:
    """The module that a store is of, which it does not hold."""
    words = "The module that the store is of, which it does not hold: package.module:function or file.py:function."
    return click.option("--model", "model_name", help=words)(output_option(command))


def engine_options(command: Command) -> Command:
    """Where and how tiles are computed; what is left out is as it was when the store was begun."""
    for option in (
        click.option("--device", default=None, help="Where torch computes.  [default: as before]"),
        click.option("--threads", type=int, default=None, help="Threads of the engine's BLAS."),
        click.option("--memory", default="2GB", show_default=True, help="Bound of the working memory."),
        click.option("--backend", default=None, help="torch, julia or reference.  [default: as before]"),
    ):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Look at a kernel store, verify and repair it, or append samples."""


@command.command()
@path_argument
def info(path: Path) -> int:
    """Print what a store holds: its manifest as JSON."""
    import json

    from udlbridge.store.kernel_store import KernelStore

    store = KernelStore(path)
    click.echo(json.dumps(store.manifest, indent=2))
    return 0 if store.complete else 1


@command.command()
@path_argument
@click.option("--repair", is_flag=True, help="Compute missing and damaged tiles again, with the options below.")
@network_options
@engine_options
@click.option("--quiet", is_flag=True, help="No progress bar.")
def verify(
    path: Path,
    repair: bool,
    model_name: str | None,
    output: str | None,
    quiet: bool,
    **engine: Any,
) -> int:
    """Read every tile and its checksum, the network and the samples; a module where it is named by --model.

    The exit code is 0 only if all are there and whole (in the end).
    """
    store = _opened(path, model_name, output)
    found = store.verify()
    click.echo(f"{found.good} tiles are whole, {len(found.damaged)} damaged, {len(found.missing)} missing")
    for name, tiles in (("damaged", found.damaged), ("missing", found.missing)):
        for row, column in tiles[:10]:
            click.echo(f"  {name}: tile ({row}, {column})")
    for problem in found.inputs:
        click.echo(f"  {problem}")
    if not repair:
        if found.ok and not store.complete:
            click.echo("  but the computation was interrupted before it said so: finish it with --repair")
        return 0 if found.ok and store.complete else 1
    computed = store.repair(**engine, progress=False if quiet else None)
    click.echo(f"computed {computed} tiles again")
    return 0 if store.verify().ok else 1


@command.command()
@path_argument
@click.argument("samples", type=UserPath(path_type=Path, exists=True))
@network_options
@engine_options
@click.option("--quiet", is_flag=True, help="No progress bar.")
def append(
    path: Path,
    samples: Path,
    model_name: str | None,
    output: str | None,
    quiet: bool,
    **engine: Any,
) -> int:
    """Append the samples of a .npy file, (m, *D), or of a .npz file by name; only the new rows are computed."""
    store = _opened(path, model_name, output)
    taken = load_samples(samples, several="module" in store.manifest)
    store.append(taken, **engine, progress=False if quiet else None)
    click.echo(f"{path} is now {store.shape}")
    return 0


def _opened(path: Path, model_name: str | None, output: str | None) -> KernelStore:
    """The store, with the module that it is of, if one was named."""
    from udlbridge.store.kernel_store import KernelStore

    model = None if model_name is None else load_model(model_name, None, output)
    return KernelStore(path, model=model)
