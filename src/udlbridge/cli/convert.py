"""`udlbridge convert`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.common import UserPath


@click.command()
@click.argument("source", metavar="IN", type=UserPath(path_type=Path))
@click.argument("target", metavar="OUT", type=UserPath(path_type=Path))
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Convert the numbers; without it they stay.")
@click.option("--spec", type=UserPath(path_type=Path), help="JSON file with the layers, where IN has arrays alone.")
@click.option("--force", is_flag=True, help="Overwrite OUT.")
def command(source: Path, target: Path, dtype: str | None, spec: Path | None, force: bool) -> None:
    """Convert a network from one file format to another, by the endings of the names.

    .safetensors: a model file of udlbridge, in Python and in Julia (UDLBridge.save, UDLBridge.load).
    .npz: NumPy arrays by name, and the layers as JSON under "spec".
    .pt, .pth: a state dict of PyTorch, that of ub.to_torch(model); it has no layers, so reading it needs --spec.
    .json: the layers alone; only as OUT.
    """
    from udlbridge.conversion.formats import read_network, write_network
    from udlbridge.errors import ModelFileError

    if target.exists() and not force:
        raise ModelFileError(f"{target} exists", allowed="a new file", remedy="add --force to overwrite it")
    model = read_network(source, spec)
    if dtype is not None:
        model = model.astype(dtype)
    write_network(model, target)
    click.echo(f"{target}: {len(model.layers)} layers, {model.n_params:,} parameters, {model.dtype}")
