"""`udlbridge store info|verify|append`."""

from __future__ import annotations

from pathlib import Path

import click

path_argument = click.argument("path", type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """Look at a kernel store, verify and repair it, or append samples."""


@command.command()
@path_argument
def info(path: Path) -> int:
    """Print what a store holds: its manifest as JSON."""
    import json

    from udlbridge.computing import KernelStore

    store = KernelStore(path)
    click.echo(json.dumps(store.manifest, indent=2))
    return 0 if store.complete else 1


@command.command()
@path_argument
@click.option("--repair", is_flag=True, help="Compute missing and damaged tiles again.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def verify(path: Path, repair: bool, quiet: bool) -> int:
    """Read every tile and its checksum. The exit code is 0 only if all are there and whole (in the end)."""
    from udlbridge.computing import KernelStore

    store = KernelStore(path)
    found = store.verify()
    click.echo(f"{found.good} tiles are whole, {len(found.damaged)} damaged, {len(found.missing)} missing")
    for name, tiles in (("damaged", found.damaged), ("missing", found.missing)):
        for row, column in tiles[:10]:
            click.echo(f"  {name}: tile ({row}, {column})")
    if found.ok or not repair:
        return 0 if found.ok else 1
    click.echo(f"computed {store.repair(progress=False if quiet else None)} tiles again")
    return 0 if KernelStore(path).verify().ok else 1


@command.command()
@path_argument
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
@click.option("--quiet", is_flag=True, help="No progress bar.")
def append(path: Path, samples: Path, quiet: bool) -> int:
    """Append the samples of a .npy file, (m, *D); only the new rows are computed."""
    import numpy as np

    from udlbridge.computing import KernelStore

    store = KernelStore(path)
    store.append(np.load(samples, allow_pickle=False), progress=False if quiet else None)
    click.echo(f"{path} is now {store.shape}")
    return 0
