"""`udlbridge store info|verify|append`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.common import Command, UserPath

path_argument = click.argument("path", type=UserPath(path_type=Path))


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
@engine_options
@click.option("--quiet", is_flag=True, help="No progress bar.")
def verify(
    path: Path, repair: bool, backend: str | None, memory: str, threads: int | None, device: str | None, quiet: bool
) -> int:
    """Read every tile and its checksum, the network and the samples.

    The exit code is 0 only if all are there and whole (in the end).
    """
    from udlbridge.store.kernel_store import KernelStore

    store = KernelStore(path)
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
    computed = store.repair(
        backend=backend, memory=memory, threads=threads, device=device, progress=False if quiet else None
    )
    click.echo(f"computed {computed} tiles again")
    return 0 if store.verify().ok else 1


@command.command()
@path_argument
@click.argument("samples", type=UserPath(path_type=Path, exists=True))
@engine_options
@click.option("--quiet", is_flag=True, help="No progress bar.")
def append(
    path: Path,
    samples: Path,
    backend: str | None,
    memory: str,
    threads: int | None,
    device: str | None,
    quiet: bool,
) -> int:
    """Append the samples of a .npy file, (m, *D); only the new rows are computed."""
    from udlbridge.cli.common import load_array
    from udlbridge.store.kernel_store import KernelStore

    store = KernelStore(path)
    store.append(
        load_array(samples, "a file of samples, as numpy.save writes it"),
        backend=backend,
        memory=memory,
        threads=threads,
        device=device,
        progress=False if quiet else None,
    )
    click.echo(f"{path} is now {store.shape}")
    return 0
