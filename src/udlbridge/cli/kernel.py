"""`udlbridge kernel`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.common import data_option, load_model, model_option, outputs_option, samples


@click.command()
@model_option
@click.option("--n", default=1000, show_default=True, help="Number of samples.")
@outputs_option
@click.option("--backend", default=None, help="torch, julia or reference. [UDLBRIDGE_BACKEND]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--out", "target", type=click.Path(path_type=Path), required=True, help="The .npy file to write.")
@data_option
def command(
    model_name: str, n: int, outputs: str, backend: str | None, dtype: str, target: Path, folder: Path | None
) -> int:
    """Compute the kernel of a network on the first N samples and write it to a file."""
    import numpy as np

    from udlbridge.kernel import ntk

    model = load_model(model_name, dtype)
    kernel = ntk(model, samples(model, n, folder), outputs=outputs, backend=backend)
    with target.open("wb") as file:
        np.save(file, kernel)
    click.echo(f"wrote {target}: {kernel.shape} {kernel.dtype}, {kernel.nbytes:,} bytes")
    return 0
