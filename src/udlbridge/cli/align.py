"""`udlbridge align`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import (
    backends_option,
    check_used,
    data_option,
    device_option,
    engines,
    number_option,
    quiet_option,
    resumable,
)
from udlbridge.cli.fitting import fitted
from udlbridge.cli.labelled import halves
from udlbridge.cli.labels import check_together, chosen_classes, classes_of, labels_option, read_labels
from udlbridge.cli.pages import report_option
from udlbridge.cli.sample_files import Named, NamedArray, read_array
from udlbridge.cli.samples import cast_option
from udlbridge.cli.targets import (
    UserPath,
    check_plots,
    force_option,
    json_option,
    plot_option,
    report,
    save_figure,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np

    from udlbridge.networks.model import Model
    from udlbridge.words import DtypeWord

    Labelled = tuple[np.ndarray, np.ndarray]


PICTURE = "alignment.png"


@click.command(
    short_help="Run the kernel alignment study.",
    epilog="Example: udlbridge align --digits 8,9 --epochs 6 --plot pictures",
)
@click.option(
    "--digits",
    metavar="CLASSES",
    help="What to tell apart, with commas: digits, or with --samples classes by their numbers or words.  "
    "[default: 8,9; with --samples all]",
)
@number_option("--width", 1, 2000, "Width of the hidden layer.")
@number_option("--epochs", 0, 6, "How often all samples are learned from.")
@number_option("--batch-size", 1, 200, "Samples of a step.")
@number_option("--batches", 1, None, "Stop after so many batches; 1 is where the notebook stops.")
@number_option("--seed", 0, 0, "Of the initial weights and of the batches.")
@click.option(
    "--init",
    type=click.Choice(["torch", "glorot"]),
    default="torch",
    show_default=True,
    help="Initial weights: as PyTorch draws them, or Glorot-uniform with biases of zero.",
)
@backends_option
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Of the network and the samples.",
)
@click.option(
    "--write",
    "page",
    type=UserPath(path_type=Path, written=True),
    metavar="FILE",
    help="Put what the notebook prints, after one batch, beside what is found here where its marks stand in this file.",
)
@click.option(
    "--n",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take N training samples alone, and hold out a quarter of them.  [default: all]",
)
@click.option(
    "--samples",
    "x_file",
    type=NamedArray(),
    metavar="FILE[:KEY]",
    help="Samples, in place of MNIST's images; a quarter is held out.",
)
@labels_option
@cast_option
@quiet_option
@data_option
@json_option
@report_option
@plot_option
@force_option
def command(
    digits: str | None,
    width: int,
    epochs: int,
    batch_size: int,
    batches: int | None,
    seed: int,
    init: str,
    backend: str,
    device: str | None,
    dtype: DtypeWord,
    page: Path | None,
    n: int | None,
    x_file: Named | None,
    y_file: Named | None,
    cast: bool,
    quiet: bool,
    folder: Path | None,
    json_file: Path | None,
    html: Path | None,
    plots: Path | None,
) -> int:
    """Run the kernel alignment study: regular against slow learning of features.

    Two networks learn from the same weights and batches; the slow one has a tenth of the learning rate in its hidden
    layer. After every epoch, prints error rates and the centred alignment of the kernel of the hidden features and of
    the neural tangent kernel with the kernel of the labels; with several engines, also how far they are apart.
    """
    from udlbridge.studies.alignment import study_alignment

    check_plots(plots, [PICTURE])
    check_together(x_file, y_file)
    check_used("folder", x_file is None, f"is the folder of MNIST's images, and --samples {x_file} has its own")
    check_used("cast", x_file is not None, "converts samples of a file, and none is named")
    model, classes = None, None
    if x_file is None or y_file is None:
        learn, test = _images(_parsed("8,9" if digits is None else digits), n, folder, dtype)
    else:
        if page is not None:
            raise click.UsageError("--write puts what the notebook prints of MNIST beside it: leave --samples out")
        learn, test, classes = _own(x_file, y_file, digits, n, dtype, cast)
        model = _network(learn[0].shape[1], width, len(classes), seed, init, dtype)
    names, skipped = engines(backend)
    settings: dict[str, Any] = {
        "width": width, "batch_size": batch_size, "seed": seed, "init": init, "model": model,
        "progress": False if quiet else None, "device": device,
        "classes": classes, "source": "MNIST" if classes is None else "",
    }  # fmt: skip
    with resumable("nothing of it is kept; --epochs, --batches and --n make it shorter"):
        study = study_alignment(learn, test, backends=names, epochs=epochs, batches=batches, **settings)
    report(str(study), json_file)
    for name, reason in skipped.items():
        report(f"{name} was left out: {reason}", json_file)
    if page is not None:
        from udlbridge.studies.alignment_table import comparison
        from udlbridge.udl.practicals import overview

        first = study_alignment(learn, test, backends=names, batches=1, **settings)
        overview.write(page, {"alignment": comparison(first, study)})
        report(f"wrote the figures of the study to {page}", json_file)
    if html is not None:
        from udlbridge.cli.pages import write_page
        from udlbridge.plots.training import study_figure

        write_page(html, str(study), {"Epochs": study.as_rows()}, {"Study": study_figure(study)}, json_file)
    if plots is not None:
        from udlbridge.plots.training import study_figure

        save_figure(study_figure(study), plots / PICTURE, json_file)
    if json_file is not None:
        write_json({**study.to_dict(), "skipped": skipped}, json_file)
    return 0


def _own(
    x_file: Named, y_file: Named, chosen: str | None, n: int | None, dtype: DtypeWord, cast: bool
) -> tuple[Labelled, Labelled, list[str]]:
    """Samples of a file to learn from and to test on, as rows, and what their classes are called."""
    import numpy as np

    labels = read_labels(y_file)
    found = read_array(x_file, without=y_file)
    found = fitted(found.reshape(len(found), -1), np.dtype(dtype), x_file, cast=cast)
    classes, names = classes_of(labels, y_file, len(found))
    kept = np.arange(len(found))
    if chosen is not None:
        kept = np.flatnonzero(np.isin(classes, chosen_classes(chosen, names, y_file)))
    kept = kept[:n]
    numbers, y = np.unique(classes[kept], return_inverse=True)
    names = [names[number] for number in numbers]
    x, y, x_test, y_test, _ = halves((found[kept], y, names), None, None, None, named=y_file, several=True)
    return (x, y), (x_test, y_test), names


def _network(inputs: int, width: int, classes: int, seed: int, init: str, dtype: DtypeWord) -> Model:
    """The network of the study, for samples of other sizes than MNIST's."""
    from udlbridge.networks.init import torch_default
    from udlbridge.networks.layers import Dense
    from udlbridge.networks.model import Model

    model = Model([Dense(inputs, width, "relu"), Dense(width, classes)], seed=seed, dtype=dtype)
    return torch_default(model, seed) if init == "torch" else model


def _parsed(digits: str) -> list[int]:
    from udlbridge.errors import OptionError

    parts = [part.strip() for part in digits.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < 2:
        raise OptionError(
            f"--digits {digits}",
            allowed="at least two different digits, with commas: the centred kernel of equal labels vanishes",
            remedy="as --digits 8,9",
        )
    return [int(part) for part in parts]


def _images(digits: list[int], n: int | None, folder: Path | None, dtype: DtypeWord) -> tuple[Labelled, Labelled]:
    """Images and digits to learn from and to test on."""
    from udlbridge import data

    x, y = data.mnist("train", n=n, digits=digits, folder=folder, dtype=dtype)
    if n is None:
        return (x, y), data.mnist("test", digits=digits, folder=folder, dtype=dtype)
    n_train = len(x) - len(x) // 4
    return (x[:n_train], y[:n_train]), (x[n_train:], y[n_train:])
