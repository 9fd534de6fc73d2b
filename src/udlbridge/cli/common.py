"""What several commands share: choosing engines, finding models and samples, writing JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from udlbridge.model import Model

data_option = click.option(
    "--data", "folder", type=click.Path(path_type=Path), help="Folder with the four MNIST files. [UDLBRIDGE_DATA]"
)
json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write the result as JSON; - for stdout.",
)
model_option = click.option(
    "--model", "model_name", default="3ls", show_default=True, help="3ls, notebook1, or a .safetensors file."
)
outputs_option = click.option(
    "--outputs", default="trace", show_default=True, help="An output from 0 on, or trace, mean, sum, diagonal, full."
)


def write_json(result: dict[str, Any], target: Path) -> None:
    """Write `result` to a file, or to standard output for "-"."""
    text = json.dumps(result, indent=2)
    if str(target) == "-":
        click.echo(text)
    else:
        target.write_text(text + "\n", encoding="utf-8")


def report(text: str, json_file: Path | None) -> None:
    """Print the text for people, unless standard output is for the JSON."""
    click.echo(text, err=json_file is not None and str(json_file) == "-")


def engines(choice: str, *, install: bool) -> tuple[list[str], dict[str, str]]:
    """The backends that "all", or a comma-separated list, means here; and those left out of "all", with the reason.

    For "all", Julia is set up through juliapkg if it is missing and `install` allows it; where that fails the others
    go on without it.
    """
    from udlbridge import backends
    from udlbridge.errors import BackendUnavailable

    if choice != "all":
        return backends.chosen([name.strip() for name in choice.split(",")]), {}
    usable, skipped = [], {}
    for name in backends.BACKENDS:
        try:
            backends.get(name, install=install)
            usable.append(name)
        except BackendUnavailable as error:
            skipped[name] = str(error)
    return usable, skipped


def load_model(name: str, dtype: str) -> Model:
    """A network by name, or from a file."""
    from udlbridge import models
    from udlbridge.model import Model

    if name == "3ls":
        return models.three_layer_sigmoid(dtype=dtype)
    if name == "notebook1":
        return models.notebook_method1(dtype=dtype)
    return Model.load(name).astype(dtype)


def samples(model: Model, n: int, folder: Path | None) -> np.ndarray:
    """`n` samples that the model can take: the notebook's points, MNIST images, or else normal random numbers."""
    import numpy as np

    from udlbridge import data, models

    width = getattr(model.layers[0], "in_features", None)
    if width == models.NOTEBOOK_POINTS.shape[1] and n <= len(models.NOTEBOOK_POINTS):
        return models.NOTEBOOK_POINTS[:n].astype(model.dtype)
    if width in (None, 784):
        return data.mnist("train", n=n, folder=folder, dtype=model.dtype.name)[0]
    return np.random.default_rng(0).standard_normal((n, width)).astype(model.dtype)
