"""`udlbridge reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from udlbridge.cli.common import backends_option, data_option, engines, no_install_option, number_option
from udlbridge.cli.targets import check_plots, force_option, json_option, plot_option, report, save_figure, write_json

if TYPE_CHECKING:
    from udlbridge.studies.reproduction import Reproduction


@click.command(
    short_help="Reproduce the Flux kernel notebook on every engine.",
    epilog="Example: udlbridge reproduce --backend torch,reference --plot pictures",
)
@backends_option
@data_option
@plot_option
@json_option
@number_option("--seed", 0, 0, "Of the weights of method 2.")
@no_install_option
@force_option
def command(
    backend: str, folder: Path | None, plots: Path | None, json_file: Path | None, seed: int, no_install: bool
) -> int:
    """Reproduce the Flux kernel notebook on every engine.

    Method 1 is a fixed network on two points; method 2 is the 784-60-60-10 network on the first ten MNIST training
    images. Prints the kernels, whether any eigenvalue is negative, and how well the engines agree with each other and
    with recorded Flux results. The exit code is 0 only if all agree.
    """
    from udlbridge.studies.reproduction import reproduce

    check_plots(plots, [f"method{number}_{kind}.png" for number in (1, 2) for kind in ("agreement", "spectrum")])
    names, skipped = engines(backend, install=not no_install)
    result = reproduce(names, skipped=skipped, folder=folder, seed=seed)
    report(str(result), json_file)
    if plots is not None:
        _draw(result, plots, json_file)
    if json_file is not None:
        write_json(result.to_dict(), json_file)
    return 0 if result.ok else 1


def _draw(result: Reproduction, folder: Path, json_file: Path | None) -> None:
    from udlbridge.plots.kernels import agreement_figure, spectrum_figure

    for number, results in ((1, result.method1), (2, result.method2)):
        title = f"Notebook method {number}: kernel of output 0"
        kernels = {name: item.kernel for name, item in results.items()}
        spectra = {name: item.spectrum for name, item in results.items()}
        for kind, figure in (
            ("agreement", agreement_figure(kernels, title)),
            ("spectrum", spectrum_figure(spectra, f"{title}, eigenvalues")),
        ):
            save_figure(figure, folder / f"method{number}_{kind}.png", json_file)
