"""`udlbridge convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from udlbridge.cli.targets import UserPath, check_new, force_option, json_option, report, write_json
from udlbridge.texts import counted

if TYPE_CHECKING:
    from udlbridge.words import DtypeWord


@click.command(
    short_help="Convert a network to another file format.",
    epilog="Example: udlbridge convert model.safetensors model.npz",
)
@click.argument("source", metavar="IN", type=UserPath(path_type=Path))
@click.argument("target", metavar="OUT", type=UserPath(path_type=Path, written=True))
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Convert the numbers; without it they stay.")
@click.option(
    "--spec",
    type=UserPath(path_type=Path),
    metavar="FILE",
    help="JSON file with the layers, where IN has arrays alone.",
)
@click.option(
    "--strip",
    metavar="PREFIX",
    help='What to take off the names of arrays: "auto" for what wrappers put before them, as module. and _orig_mod.',
)
@json_option
@force_option
def command(
    source: Path, target: Path, dtype: DtypeWord | None, spec: Path | None, strip: str | None, json_file: Path | None
) -> None:
    """Convert a network from one file format to another, by the endings of the names.

    .safetensors: a model file of udlbridge, in Python and in Julia (UDLBridge.save, UDLBridge.load). A graph, as
    ub.from_torch(module, x) gives it, has no other format: of such a file --dtype converts the numbers.
    .npz: NumPy arrays by name, and the layers as JSON under "spec".
    .pt, .pth: a state dict of PyTorch, that of ub.to_torch(model), or a checkpoint that has one; it has no layers, so
    reading it needs --spec. Half precision needs --dtype.
    .json: the layers alone; only as OUT.
    """
    from udlbridge.conversion.formats import read_either, write_network
    from udlbridge.networks.graphs.graph import Graph

    check_new(target, "")
    network = read_either(source, spec, strip, dtype)
    write_network(network, target)
    parts = {"nodes": len(network.nodes)} if isinstance(network, Graph) else {"layers": len(network.layers)}
    said = ", ".join(f"{count:,} {part}" for part, count in parts.items())
    report(f"{target}: {said}, {counted(network.n_params, 'parameter')}, {network.dtype}", json_file)
    if json_file is not None:
        figures = {**parts, "parameters": network.n_params, "dtype": network.dtype.name}
        write_json({"path": str(target), **figures, "hash": network.hash()}, json_file)
