"""What may come in as a batch of samples, checked once, before any engine sees it."""

from __future__ import annotations

import numpy as np

from udlbridge.errors import DTypeError, InputError, OptionError, ShapeError
from udlbridge.model import Model


def check_model(model: object) -> None:
    """Raise `OptionError` for what is no `Model`, saying how a module of PyTorch becomes one."""
    if not isinstance(model, Model):
        raise OptionError(
            f"a {type(model).__name__} in the place of the model",
            allowed="a udlbridge.Model",
            remedy="translate a torch.nn.Module by ub.from_torch(module), or describe the network with ub.Model([...])",
        )


def checked_batch(model: Model, x: object, name: str = "x") -> np.ndarray:
    """`x` as a C-contiguous array (n, *D) of the model's dtype, or an error that says what is wrong with it.

    For a model that begins with an Embedding, x (n, T) holds tokens, integers of any width; they come back as int64.

    Raises:
        DTypeError: another dtype than the model's.
        ShapeError: fewer than two axes, or samples that the layers cannot take.
        InputError: no samples, NaN or infinity.
        OptionError: something else in the place of the model.
    """
    check_model(model)
    array = np.asarray(x)
    if model.takes_tokens:
        return _checked_tokens(model, array, name)
    if array.dtype != model.dtype:
        if array.dtype.kind not in "f":
            remedy = f"{name} = np.asarray({name}, dtype=np.{model.dtype})"
            if array.dtype.kind == "c":
                remedy = f"take its real part: {name}.real.astype(np.{model.dtype})"
            if array.dtype.kind == "O":
                remedy = f"make a rectangular array of numbers: np.stack({name}).astype(np.{model.dtype})"
        else:
            remedy = f'either {name}.astype("{model.dtype}") or model.astype("{array.dtype}")'
            if array.dtype.name not in ("float32", "float64"):
                remedy = f'{name}.astype("{model.dtype}")'
        raise DTypeError(
            f"{name} has dtype {array.dtype}, the model has {model.dtype}",
            allowed=f"{model.dtype}: a dtype is never changed silently",
            remedy=remedy,
        )
    _check_extent(model, array, name)
    if not np.isfinite(array).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} is {array[bad]} at {bad}", allowed="finite numbers", remedy="clean the data")
    return np.ascontiguousarray(array)


def _checked_tokens(model: Model, array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"{name} has dtype {array.dtype}, and the model begins with an Embedding",
            allowed="integers: the numbers of the tokens, from 0",
            remedy=f"{name} = {name}.astype(int)",
        )
    _check_extent(model, array, name)
    known = model.param_shapes()["0.weight"][0]
    outside = (array < 0) | (array >= known)
    if outside.any():
        bad = tuple(int(i) for i in np.argwhere(outside)[0])
        raise InputError(
            f"{name} is {array[bad]} at {bad}", allowed=f"tokens from 0 to {known - 1}", remedy="check the tokeniser"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _check_extent(model: Model, array: np.ndarray, name: str) -> None:
    if array.ndim < 2:
        raise ShapeError(
            f"{name} has shape {array.shape}",
            allowed="samples along the first axis: (n, *sample)",
            remedy=f"for a single sample, {name}[None]; for n scalars, {name}[:, None]",
        )
    if array.size == 0:
        raise InputError(
            f"{name} is empty: its shape is {array.shape}", allowed="at least one sample", remedy="check the selection"
        )
    model.output_shape(array.shape[1:])


def output_size(model: Model, x: np.ndarray) -> int:
    """O, the number of outputs of the model for samples like those of `x` (n, *D).

    Raises:
        ShapeError: if f(x) is not one vector per sample.
    """
    shape = model.output_shape(x.shape[1:])
    if len(shape) != 1:
        raise ShapeError(
            f"the model gives outputs of shape {shape} for each sample",
            allowed="one vector per sample, (O,)",
            remedy="end the model with Flatten()",
        )
    return shape[0]


def plausible_shape(model: Model) -> tuple[int, ...] | None:
    """The shape of one sample that the layers can take, where it follows from them, else None.

    Features and channels are known. The size of an image or series (32 or 28, as of CIFAR and MNIST, else the smallest
    up to 256) and the length of a sequence (the largest up to 16) are searched for: Dense after Flatten decides.
    """
    first = model.layers[0]
    width = first.widths()
    sizes = (32, 28, *range(1, 257))
    candidates: list[tuple[int, ...]] = []
    if model.takes_tokens:
        candidates = [(tokens,) for tokens in range(16, 0, -1)]
    elif width is not None and width[0] == -1:
        candidates = [(width[1],), *((tokens, width[1]) for tokens in range(16, 0, -1))]
    elif width is not None:
        candidates = [(width[1], size, size) for size in sizes] + [(width[1], size) for size in sizes]
    for shape in candidates:
        try:
            if len(model.output_shape(shape)) == 1:
                return shape
        except ShapeError:
            continue
    return None


def random_batch(model: Model, shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """Random samples (n, *shape) that the model takes: normal numbers of its dtype, or tokens."""
    generator = np.random.default_rng(seed)
    if model.takes_tokens:
        return generator.integers(0, model.param_shapes()["0.weight"][0], size=(n, *shape))
    return generator.standard_normal((n, *shape)).astype(model.dtype)
