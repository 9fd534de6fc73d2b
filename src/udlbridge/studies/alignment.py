"""The kernel alignment study: does a network that learns its features slowly align them less with the labels?

A network, 784 - width (ReLU) - classes unless another is given, learns to tell MNIST digits apart, twice from the same
weights and with the same batches: "regular", with one learning rate for all, and "slow", with a tenth of it for the
hidden layer. After every epoch the kernels of the hidden features and of the network (its NTK) are compared with the
kernel of the labels. The weights begin as PyTorch's do, in the notebook and here.

The notebook that this reproduces has these mistakes, which are corrected here:

- its `train` returns inside the loop over batches, so an epoch is one batch (`batches=1` stops there);
- that function takes the features of the global slow model, whichever it trains, so both have the same;
- what it records as accuracy is the error, in per cent;
- it sets the label of every image to 1, so the centred label kernel vanishes and what it divides by is rounding;
- it multiplies the kernels as matrices, where the alignment is a number, the sum of the products of their entries;
- its last line ends in a TypeError: `torch.mm` has no `p`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from udlbridge.analysis.labels import label_kernel
from udlbridge.arrays import as_array
from udlbridge.backends import checked_device, engine, get, one_or_more
from udlbridge.errors import InputError, OptionError, ShapeError
from udlbridge.kernels.derivatives import outputs
from udlbridge.kernels.request import device_name
from udlbridge.networks.init import torch_default
from udlbridge.networks.inputs import check_model, checked_batch, output_size
from udlbridge.networks.model import Model
from udlbridge.networks.models import hidden_relu
from udlbridge.options import checked_choice, checked_count, checked_list
from udlbridge.studies.alignment_results import LR, MEASURED, VARIANTS, AlignmentStudy
from udlbridge.texts import counted
from udlbridge.training.endings import ending
from udlbridge.training.loop import train
from udlbridge.training.probes import Probe
from udlbridge.training.runs import TrainingRun
from udlbridge.training.trainer import batch_order
from udlbridge.words import DtypeWord, EngineWord


def study_alignment(
    train_data: tuple[np.ndarray, np.ndarray],
    test_data: tuple[np.ndarray, np.ndarray],
    *,
    backends: str | Sequence[EngineWord],
    width: int = 2000,
    epochs: int = 6,
    batch_size: int = 200,
    batches: int | None = None,
    seed: int = 0,
    init: str = "torch",
    model: Model | None = None,
    progress: bool | None = None,
    threads: int | None = None,
    device: Any = None,
    classes: Sequence[str] | None = None,
    source: str = "",
) -> AlignmentStudy:
    """Train the regular and the slow model on every engine, and measure both after every epoch.

    Args:
        train_data, test_data: images (n, 784), float32 or float64, and the digits that they show (n,).
        backends: names of engines, in a list or with commas in between, or "all" that run here.
        width: of the hidden layer of `models.hidden_relu`; without effect if a model is given.
        epochs, batch_size: of both models.
        batches: stop after so many batches of the first epoch, whatever `epochs` says; None goes through all.
        seed: of the initial weights and of the order of the images.
        init: "torch" for weights and biases as PyTorch draws them after `torch.manual_seed(seed)`, "glorot" for
            Glorot-uniform weights from NumPy and biases of zero; without effect if a model is given.
        model: where to start, with one output for each digit; its features are those before the last layer, and the
            slow model is slow in layer 0. None takes `models.hidden_relu(width)` with weights as `init` says.
        progress, threads: as for `udlbridge.train`.
        device: where the engines compute that know such devices, as "cuda" in torch; the others stay on the CPU.
        classes: what these are called in titles, smallest number first; None takes the numbers.
        source: what the data are called in titles, as "MNIST".

    Returns:
        The runs, with tables for people and for JSON.

    Raises:
        InputError: no images, training or test images of one digit alone, or test images of a digit not learned.
        ShapeError: digits that are not one whole number for each image.
        OptionError: no engine was named, an impossible number, a device that no engine named knows or that is not
            here, or a model with another readout, a single layer or a Softmax at its end; not a name for each class.
        As `udlbridge.train`.

    Source: Cortes, Mohri, Rostamizadeh (2012), for the alignment.

    Examples:
        >>> data = np.eye(784, dtype="float32")[:8], np.tile([8, 9], 4)
        >>> study = ub.study_alignment(data, data, backends=["torch"], width=8, epochs=1, batch_size=4, progress=False)
        >>> sorted(study.runs)
        [('torch', 'regular'), ('torch', 'slow')]
    """
    found = one_or_more(backends)
    # In the order in which a list names them: the losses that are drawn are those of the first.
    listed = [] if isinstance(backends, str) else dict.fromkeys(backends)
    names = [name for name in listed if name in found] or found
    devices = _devices(names, device)
    width, batch_size = checked_count("width", width, 1), checked_count("batch_size", batch_size, 1)
    epochs, seed = checked_count("epochs", epochs, 0), checked_count("seed", seed, 0)
    x, y = _labelled(train_data, "training")
    x_test, y_test = _labelled(test_data, "test")
    digits, y = np.unique(y, return_inverse=True)
    unknown = np.setdiff1d(y_test, digits)
    if len(unknown):
        raise InputError(f"test images of the digit {unknown[0]}", allowed=f"{digits.tolist()}", remedy="leave it out")
    y_test = np.searchsorted(digits, y_test)
    if classes is not None:
        classes = checked_list("classes", classes, "a name for each class", f"name {digits.tolist()}")
    if classes is not None and len(classes) != len(digits):
        raise OptionError(
            f"{len(classes)} names for {counted(len(digits), 'class', 'classes')}",
            allowed="one for each",
            remedy=f"name {digits.tolist()}",
        )
    start = _start(width, len(digits), seed, init, x.dtype) if model is None else model
    shapes = _shapes(start, x, x_test, len(digits))
    indices = np.arange(len(x))
    if batches is not None:
        count = checked_count("batches", batches, 1, -(-len(x) // batch_size))
        indices, epochs = batch_order(len(x), seed, 0)[: count * batch_size], 1
    probe = Probe(
        x_test,
        every=-(-len(indices) // min(batch_size, len(indices))),
        quantities=MEASURED,
        target=label_kernel(np.eye(len(digits))[y_test]),
        name="alignment",
    )
    runs = {
        (backend, variant): train(
            start,
            x[indices],
            y[indices],
            epochs=epochs,
            batch_size=batch_size,
            backend=backend,
            loss="cross_entropy",
            optimizer=("sgd", {"lr": LR}),
            lr_groups=rates,
            seed=seed,
            # A part of an epoch is in its order already.
            orders=None if batches is None else np.arange(len(indices))[None],
            validation=(x_test, y_test),
            callbacks=[replace(probe, device=devices[backend])],
            progress=progress,
            threads=threads,
            device=devices[backend],
        )
        for backend in names
        for variant, rates in VARIANTS.items()
    }
    if batches is not None:
        runs = {key: _over_all(run, start, x, y) for key, run in runs.items()}
    return AlignmentStudy(
        tuple(map(int, digits)),
        len(x),
        len(x_test),
        _architecture(start, shapes),
        math.prod(shapes[-2]),
        runs,
        tuple(map(str, classes or ())),
        source,
    )


def _devices(names: Sequence[EngineWord], device: Any) -> dict[EngineWord, str | None]:
    """Where each engine computes, found out before the first of them trains for minutes. Raises `OptionError`."""
    if device is None:
        return dict.fromkeys(names)
    where = device_name(device)
    knowing = [name for name in names if str(where).split(":")[0] in engine(name).devices]
    for name in knowing or names[:1]:
        get(name).check_device(checked_device(name, where))
    return {name: where if name in knowing else None for name in names}


def _start(width: int, classes: int, seed: int, init: str, dtype: DtypeWord) -> Model:
    """The notebook's network with initial weights."""
    checked_choice("init", init, ("torch", "glorot"))
    model = hidden_relu(width, classes, seed=seed, dtype=dtype)
    return torch_default(model, seed) if init == "torch" else model


def _over_all(run: TrainingRun, start: Model, x: np.ndarray, y: np.ndarray) -> TrainingRun:
    """The run with training errors over all images: it has learned from some of them alone."""
    rates = [
        float(np.mean(np.argmax(outputs(model, x, backend=run.backend), axis=1) != y)) for model in (start, run.model)
    ]
    return replace(run, errors=tuple(replace(e, train=rate) for e, rate in zip(run.errors, rates, strict=True)))


def _labelled(data: tuple[np.ndarray, np.ndarray], which: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and their digits, of which there are at least two different ones."""
    x, y = as_array(data[0], f"the {which} images"), as_array(data[1], f"the digits of the {which} images")
    if len(np.atleast_1d(x)) == 0:
        raise InputError(f"no {which} images", allowed="at least two, of two digits", remedy="take more images")
    if y.dtype.kind not in "iu" or x.ndim == 0 or y.shape != x.shape[:1]:
        raise ShapeError(
            f"digits of shape {y.shape} and dtype {y.dtype} for {which} images of shape {x.shape}",
            allowed="one whole number for each image, (n,)",
            remedy="give the digits that the images show, as integers",
        )
    if (y == y[0]).all():
        raise InputError(
            f"all {which} images show the digit {y[0]}",
            allowed="at least two digits: the centred kernel of equal labels vanishes",
            remedy="take more images, or choose two digits, as --digits 8,9",
        )
    return x, y


def _shapes(model: Model, x: np.ndarray, x_test: np.ndarray, classes: int) -> list[tuple[int, ...]]:
    """The shape of one sample, and that after each layer, of a model that suits the images and their digits."""
    check_model(model)
    checked_batch(model, x, "the array of training images")
    checked_batch(model, x_test, "the array of test images")
    if len(model.layers) < 2:
        raise OptionError(
            "a model with a single layer", allowed="features and a readout", remedy="add a layer, as hidden_relu does"
        )
    end = ending(model)
    if end is not None and end.kind == "Softmax":
        raise OptionError(
            "a model that ends in Softmax",
            allowed="logits: the loss of the study applies softmax",
            remedy="leave the Softmax out: features and kernels are then those of the logits",
        )
    if output_size(model, x.shape[1:]) != classes:
        raise OptionError(
            f"a model with {counted(output_size(model, x.shape[1:]), 'output')} for images of {classes} digits",
            allowed=f"a readout of {classes}",
            remedy=f"take another readout, as models.hidden_relu(n_classes={classes})",
        )
    shapes = [x.shape[1:]]
    for layer in model.layers:
        shapes.append(layer.output_shape(shapes[-1]))
    return shapes


def _architecture(model: Model, shapes: Sequence[tuple[int, ...]]) -> str:
    """The sizes from the sample to the outputs, and the activations in between."""
    sizes = "-".join("x".join(map(str, shape)) for shape in shapes)
    names = dict.fromkeys(getattr(layer, "activation", "identity") for layer in model.layers[:-1])
    return " ".join([sizes, *({"relu": "ReLU"}.get(name, name) for name in names if name != "identity")])
