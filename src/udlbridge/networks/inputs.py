"""What may come in as a batch of samples, checked once, before any engine sees it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from udlbridge.arrays import as_array
from udlbridge.errors import DTypeError, InputError, OptionError, ShapeError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.layers import Layer, LayerNorm, Residual
from udlbridge.networks.model import Model
from udlbridge.networks.several import in_dtype
from udlbridge.texts import kind_of


def is_module(value: object) -> bool:
    """Whether it is a `torch.nn.Module`, without importing torch: whoever has one has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "nn") and isinstance(value, torch.nn.Module)


def is_julia(value: object) -> bool:
    """Whether it is an object of juliacall that may be a model: neither a module, a type, a number nor a collection."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "juliacall" and kind.__name__ == "AnyValue"


def check_model(model: object) -> None:
    """Raise `OptionError` for anything but a `Model`, saying how a module of PyTorch becomes one."""
    if not isinstance(model, Model):
        raise OptionError(
            f"{kind_of(model)} in the place of the model",
            allowed="a udlbridge.Model",
            remedy="translate a torch.nn.Module by ub.from_torch(module), or describe the network with ub.Model([...])",
        )


def checked_samples(
    network: Model | ForeignNetwork, x: object, name: str = "x", *, passing: bool = False
) -> np.ndarray:
    """`x` as an array with the samples along the first axis, of the dtype that the network takes.

    `passing`: all of them pass through it next, for a kernel of this process.

    Raises:
        As `checked_batch`, or what an adapter says.
    """
    if isinstance(network, ForeignNetwork):
        return network.checked_passing(x, name) if passing else network.checked_batch(x, name)
    return checked_batch(network, x, name)


def checked_batch(model: Model, x: object, name: str = "x") -> np.ndarray:
    """`x` as a C-contiguous array (n, *D) of the model's dtype, or an error that says what is wrong with it.

    It may be in any container that `udlbridge.arrays` takes: an array, a tensor, a DataFrame, a sparse matrix. Lists of
    Python's numbers have no dtype, and take the model's. For a model that begins with an Embedding, x (n, T) holds
    tokens, integers of any width; they come back as int64.

    Raises:
        DTypeError: another dtype than the model's, or no numbers.
        ShapeError: fewer than two axes, rows of different length, or samples that the layers cannot take.
        InputError: no samples, NaN or infinity; a masked array.
        OptionError: `model` is not a Model.
    """
    check_model(model)
    array = as_array(x, name, wanted=None if model.takes_tokens else model.dtype)
    if model.takes_tokens:
        return _checked_tokens(model, array, name)
    check_dtype(array, name, model.dtype, "the model", 'model.astype("{}")')
    _check_extent(model, array, name)
    check_finite(array, name)
    return np.ascontiguousarray(array)


def check_dtype(array: np.ndarray, name: str, dtype: np.dtype[Any], owner: str, conversion: str) -> None:
    """Raise DTypeError for another dtype than that of the network, which `conversion` converts to a given one."""
    if array.dtype == dtype:
        return
    remedy = f'{name}.astype("{dtype}")'
    if array.dtype.kind == "c":
        remedy = f"take its real part: {name}.real.astype(np.{dtype})"
    elif array.dtype.kind != "f":
        remedy = f"{name} = np.asarray({name}, dtype=np.{dtype})"
    elif array.dtype.name in ("float32", "float64"):
        remedy = f"either {remedy} or {conversion.format(array.dtype)}"
    raise DTypeError(
        f"{name} has dtype {array.dtype}, {owner} has {dtype}",
        allowed=f"{dtype}: a dtype is never changed silently",
        remedy=remedy,
    )


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise InputError for NaN and infinity."""
    if not np.isfinite(array).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} is {array[bad]} at {bad}", allowed="finite numbers", remedy="clean the data")


def _checked_tokens(model: Model, array: np.ndarray, name: str) -> np.ndarray:
    check_whole(array, name, "the model begins with an Embedding")
    _check_extent(model, array, name)
    check_known(array, name, model.param_shapes()["0.weight"][0])
    return np.ascontiguousarray(array, dtype=np.int64)


def check_whole(array: np.ndarray, name: str, reason: str) -> None:
    """Raise DTypeError for anything but integers; `reason` says why they have to be."""
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"{name} has dtype {array.dtype}, and {reason}",
            allowed="integers: the numbers of the tokens, from 0",
            remedy=f"{name} = {name}.astype(int)",
            shell="write the file with integers",
        )


def check_known(array: np.ndarray, name: str, known: int | np.ndarray) -> None:
    """Raise InputError for tokens outside a table of `known` rows: of one, or of one for each place, 0 for none."""
    rows = np.broadcast_to(known, array.shape)
    outside = (rows > 0) & ((array < 0) | (array >= rows))
    if outside.any():
        bad = tuple(int(i) for i in np.argwhere(outside)[0])
        raise InputError(
            f"{name} is {array[bad]} at {bad}",
            allowed=f"tokens from 0 to {rows[bad] - 1}",
            remedy="check the tokeniser",
        )


def check_extent(array: np.ndarray, name: str, axes: int = 2) -> None:
    """Raise `ShapeError` for an array with fewer than `axes` axes, and `InputError` for one without a sample."""
    if array.ndim < axes:
        raise ShapeError(
            f"{name} has shape {array.shape}",
            allowed="samples along the first axis: (n, *sample)",
            remedy=f"for a single sample, {name}[None]; for n scalars, {name}[:, None]",
            shell="give the file an axis of samples, the first: (1, *sample) for a single one, (n, 1) for n numbers",
        )
    if array.size == 0:
        raise InputError(
            f"{name} is empty: its shape is {array.shape}", allowed="at least one sample", remedy="check the selection"
        )


def _check_extent(model: Model, array: np.ndarray, name: str) -> None:
    check_extent(array, name)
    model.output_shape(array.shape[1:])


def output_size(model: Model | ForeignNetwork, sample_shape: tuple[int, ...]) -> int:
    """O, the number of outputs of the model for samples of that shape.

    Raises:
        ShapeError: if f(x) is not one vector per sample.
    """
    shape = model.output_shape(sample_shape)
    if len(shape) != 1:
        raise ShapeError(
            f"the model gives outputs of shape {shape} for each sample",
            allowed="one vector per sample, (O,)",
            remedy="end the model with Flatten()",
        )
    return shape[0]


def plausible_shape(model: Model) -> tuple[int, ...] | None:
    """The shape of one sample that the layers can take, where it follows from them, else None.

    The first layer that says how many features or channels it takes decides; those before it (Dropout, pools, Flatten)
    keep them. The size of an image or series (32 or 28, as of CIFAR and MNIST, else the smallest up to 256) and the
    length of a sequence (the largest up to 16) are searched for: Dense after Flatten decides.
    """
    for shape in _candidates(model):
        try:
            if len(model.output_shape(shape)) == 1:
                return shape
        except ShapeError:
            continue
    return None


SIZES = (32, 28, *range(1, 257))
"""Sizes of images and series that are tried, in this order."""

LENGTHS = range(16, 0, -1)
"""Lengths of sequences that are tried, in this order."""


def _candidates(model: Model) -> Iterator[tuple[int, ...]]:
    """Shapes that the layers may take, the likelier first."""
    if model.takes_tokens:
        yield from ((tokens,) for tokens in LENGTHS)
        return
    first = _first_width(model.layers)
    if isinstance(first, LayerNorm):
        yield first.shape
        yield from ((tokens, *first.shape) for tokens in LENGTHS)
    channels: tuple[int, ...] = (1, 3)
    widths = None if first is None else first.widths()
    if widths is not None and widths[0] == -1:
        yield (widths[1],)
        yield from ((tokens, widths[1]) for tokens in LENGTHS)
    elif widths is not None:
        channels = (widths[1],)
    if first is None:
        return
    yield from ((count, size, size) for count in channels for size in SIZES)
    yield from ((count, size) for count in channels for size in SIZES)
    yield from ((count,) for count in channels)


def _first_width(layers: Iterable[Layer]) -> Layer | None:
    """The first layer, also inside residual blocks, that fixes the width of an axis."""
    for layer in layers:
        inside = _first_width([*layer.layers, *layer.shortcut]) if isinstance(layer, Residual) else layer
        if inside is not None and (inside.widths() is not None or isinstance(inside, LayerNorm)):
            return inside
    return None


def in_float64(x: np.ndarray) -> np.ndarray:
    """Samples with their real numbers in float64; tokens and masks as they are."""
    return in_dtype(x, np.dtype(np.float64))


def random_batch(model: Model | ForeignNetwork, shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """Random samples (n, *shape) that the model takes: normal numbers of its dtype, or tokens."""
    if isinstance(model, ForeignNetwork):
        return model.random_batch(shape, n, seed)
    generator = np.random.default_rng(seed)
    if model.takes_tokens:
        return generator.integers(0, model.param_shapes()["0.weight"][0], size=(n, *shape))
    return generator.standard_normal((n, *shape)).astype(model.dtype)
