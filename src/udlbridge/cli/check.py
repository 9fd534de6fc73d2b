"""`udlbridge check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from udlbridge.cli.common import backends_option, device_option, engines, quiet_option
from udlbridge.cli.networks import (
    dtype_option,
    load_model,
    made_in_python,
    model_option,
    named_network,
    output_option,
    seed_option,
)
from udlbridge.cli.pages import report_option
from udlbridge.cli.samples import Samples, sample_options
from udlbridge.cli.targets import force_option, json_option, report, write_json

if TYPE_CHECKING:
    from udlbridge.analysis.checking import CheckReport
    from udlbridge.analysis.comparing import PortReport


@click.command(
    short_help="Compare engines on one network, or two networks.",
    epilog="Example: udlbridge check --model port.safetensors --against original.safetensors --samples x.npy",
)
@model_option
@output_option
@click.option(
    "--against",
    "other_name",
    metavar="NETWORK",
    callback=named_network,
    help="Another network: are the two the same, and where do they part?",
)
@backends_option
@sample_options(10, of_file=10)
@dtype_option
@seed_option
@device_option
@quiet_option
@json_option
@report_option
@force_option
def command(
    model_name: str,
    output: str | None,
    other_name: str | None,
    backend: str,
    sample_options: Samples,
    dtype: str | None,
    seed: int,
    device: str | None,
    quiet: bool,
    json_file: Path | None,
    html: Path | None,
) -> int:
    """Is my port of this network right? Compares engines on one network, or one network with another.

    Every engine computes outputs, Jacobians, kernel, eigenvalues and input derivatives by itself, and every pair is
    held against the error budget of the dtype. Of a module of PyTorch, the structured kernel is compared with that of
    per-sample Jacobians, derivatives with differences, and all with other engines where it has a translation. With
    --against FILE, two networks are compared instead, layer by layer, on the first of the engines. The exit code is 0
    only if all is within the budget; where outputs differ, the first layer after which they do is named.
    """
    from dataclasses import replace

    from udlbridge.analysis.checking import check
    from udlbridge.analysis.comparing import compare_models
    from udlbridge.errors import OptionError
    from udlbridge.networks.foreign import ForeignNetwork

    networks = [model_name] if other_name is None else [model_name, other_name]
    # Of a module and a file that was made of it, the output is the module's: the file has that one alone.
    modules = [name for name in networks if made_in_python(name)] or networks
    model, *rest = (load_model(name, dtype, output if name in modules else None, seed) for name in networks)
    other = rest[0] if rest else None
    if other is not None and other.dtype != model.dtype:
        raise OptionError(
            f"--model is {model.dtype}, --against is {other.dtype}",
            allowed="two networks of the same dtype",
            remedy="add --dtype float64, which converts both, or --dtype float32",
        )
    x = sample_options.of(model)
    if other is not None:
        if device is not None:
            raise click.UsageError("--device is for one network on several engines, without --against")
        engine = None if backend == "all" else engines(backend)[0][0]
        port = compare_models(model, other, x, backend=engine)
        report(str(port), json_file)
        if html is not None:
            _write("Layers", port, html, json_file)
        if json_file is not None:
            write_json(port.to_dict(), json_file)
        return 0 if port.ok else 1
    progress = False if quiet else None
    if isinstance(model, ForeignNetwork):
        # Whether other engines are asked at all is a matter of its translation.
        named = None if backend == "all" else engines(backend)[0]
        result = check(model, x, backends=named, device=device, progress=progress)
    else:
        names, skipped = engines(backend)
        result = replace(check(model, x, backends=names, device=device, progress=progress), skipped=skipped)
    report(str(result), json_file)
    if html is not None:
        _write("Comparisons", result, html, json_file)
    if json_file is not None:
        write_json(result.to_dict(), json_file)
    return 0 if result.ok else 1


def _write(name: str, result: CheckReport | PortReport, html: Path, json_file: Path | None) -> None:
    """The page of a report, with its picture."""
    from udlbridge.analysis.checking import CheckReport
    from udlbridge.cli.pages import write_page
    from udlbridge.plots.reports import draw_check, draw_port
    from udlbridge.plots.style import figure, make_room

    with figure(7.0, 4.5) as (drawn, ax):
        if isinstance(result, CheckReport):
            draw_check(ax, result)
        else:
            draw_port(ax, result)
        make_room(ax)
    write_page(html, str(result), {name: result.as_rows()}, {"Differences": drawn}, json_file)
