"""`udlbridge check`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.common import count_option, data_option, engines, json_option, report, write_json
from udlbridge.cli.networks import (
    dtype_option,
    load_model,
    model_option,
    output_option,
    samples,
    samples_option,
    shape_option,
)


@click.command()
@model_option
@output_option
@click.option("--against", "other_name", help="Another network: are the two the same, and where do they part?")
@count_option(10, "Number of samples.")
@click.option("--backends", default="all", show_default=True, help="Engines to compare, with commas.")
@shape_option
@samples_option
@dtype_option
@data_option
@json_option
def command(
    model_name: str,
    output: str | None,
    other_name: str | None,
    n: int,
    backends: str,
    shape: str | None,
    samples_file: Path | None,
    dtype: str | None,
    folder: Path | None,
    json_file: Path | None,
) -> int:
    """Is my port of this network right? Compares engines on one network, or one network with another.

    Every engine computes outputs, Jacobians, kernel, eigenvalues and input derivatives by itself, and every pair is
    held against the error budget of the dtype. Of a module of PyTorch, the structured kernel is compared with that of
    per-sample Jacobians, derivatives with differences, and all with other engines where it has a translation. With
    --against FILE, two networks are compared instead, layer by layer, on the first of the engines. The exit code is 0
    only if all is within the budget; where outputs differ, the first layer behind which they do is named.
    """
    from dataclasses import replace

    from udlbridge.analysis.checking import check
    from udlbridge.analysis.comparing import compare_models
    from udlbridge.errors import OptionError
    from udlbridge.networks.foreign import ForeignNetwork

    model = load_model(model_name, dtype, output)
    other = None if other_name is None else load_model(other_name, dtype, output)
    if other is not None and other.dtype != model.dtype:
        raise OptionError(
            f"--model is {model.dtype}, --against is {other.dtype}",
            allowed="two networks of the same dtype",
            remedy="add --dtype float64, which converts both, or --dtype float32",
        )
    x = samples(model, n, folder, shape, samples_file)
    if other is not None:
        engine = None if backends == "all" else engines(backends)[0][0]
        port = compare_models(model, other, x, backend=engine)
        report(str(port), json_file)
        if json_file is not None:
            write_json(port.to_dict(), json_file)
        return 0 if port.ok else 1
    if isinstance(model, ForeignNetwork):
        # Whether other engines are asked at all is a matter of its translation.
        result = check(model, x, backends=None if backends == "all" else engines(backends)[0])
    else:
        names, skipped = engines(backends)
        result = replace(check(model, x, backends=names), skipped=skipped)
    report(str(result), json_file)
    if json_file is not None:
        write_json(result.to_dict(), json_file)
    return 0 if result.ok else 1
