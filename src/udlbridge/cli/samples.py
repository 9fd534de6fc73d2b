"""Which samples a command computes on: of a file, MNIST's, or random ones where they are asked for."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import Command, data_option
from udlbridge.cli.labels import LEFT_OUT, check_left_out
from udlbridge.cli.sample_files import Named, NamedArray, parsed_shape, read_array

if TYPE_CHECKING:
    import numpy as np

    from udlbridge.networks.foreign import ForeignNetwork

RANDOM = "random"
"""What --samples says for random ones."""


class _NamedOrRandom(NamedArray):
    """A file with samples, or the word for random ones."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return RANDOM if value == RANDOM else super().convert(value, param, ctx)


@dataclass(frozen=True)
class Samples:
    """What the options of a command say of its samples."""

    n: int | None
    usual: int
    of_file: int | None
    source: Named | str | None
    shape: str | None
    cast: bool
    folder: Path | None
    seed: int = 0
    labels: Named | None = None

    @property
    def count(self) -> int:
        """How many are taken where it is not a file that decides."""
        return self.usual if self.n is None else self.n

    def sizes(self, model: Any) -> tuple[int, ...] | None:
        """The shape of one sample as far as it is known without samples."""
        return None if self.shape is None else parsed_shape(self.shape)

    def of(self, model: Any) -> Any:
        """Samples that the model can take: of the file, the notebook's points, MNIST images, or random ones.

        Raises:
            UsageError: labels that are not of the file.
            OptionError: none are named, and it does not take MNIST's images.
            ShapeError: `shape` is not a list of sizes, or does not fit the layers; or the layers do not say one.
            DataError: the file has no arrays; or MNIST images are wanted, and no source has them.
            DTypeError: samples of a file have another dtype than the network, and --cast was not given.
        """
        check_left_out(self.source, self.labels)
        if isinstance(self.source, Named):
            return self._first(self.source, read(self.source, model, cast=self.cast, without=self.labels))
        return self._drawn(model)

    def check_count(self, model: Any) -> None:
        """Raise `InputError` for more of MNIST's images than there are, where no other samples are named."""
        from udlbridge.errors import InputError
        from udlbridge.networks.foreign import ForeignNetwork
        from udlbridge.networks.inputs import plausible_shape

        mnist = self.source is None and not isinstance(model, ForeignNetwork)
        if mnist and plausible_shape(model) in MNIST and self.count > MNIST_IMAGES:
            raise InputError(
                f"--n {self.count} images of MNIST",
                allowed=f"at most {MNIST_IMAGES:,}, which are there",
                remedy="ask for fewer, or name other samples: --samples FILE",
            )

    def _first(self, source: Named, found: Any) -> Any:
        from udlbridge.errors import InputError

        lengths = [len(value) for value in found.values()] if isinstance(found, dict) else [len(found)]
        if self.n is not None and self.n > min(lengths):
            raise InputError(
                f"--n {self.n} samples of {source}",
                allowed=f"at most the {min(lengths)} that it has",
                remedy="ask for fewer",
            )
        count = self.of_file if self.n is None else self.n
        return taken(found, 0, count)

    def _drawn(self, model: Any) -> Any:
        from udlbridge import data
        from udlbridge.errors import OptionError, ShapeError
        from udlbridge.networks import models
        from udlbridge.networks.foreign import ForeignNetwork
        from udlbridge.networks.inputs import plausible_shape, random_batch

        foreign = isinstance(model, ForeignNetwork)
        sizes = self.sizes(model) or (model.sample_shape if foreign else plausible_shape(model))
        n = self.count
        if sizes is None:
            raise ShapeError(
                "a module does not say what shape a sample has" if foreign else "the layers do not say it",
                allowed="--samples FILE, or --shape SIZES, for random samples",
                remedy="as --samples x.npy, or as --shape 3,32,32",
            )
        if not foreign:
            model.output_shape(sizes)
            points = models.NOTEBOOK_POINTS
            if self.source is None and self.shape is None and sizes == points.shape[1:] and n <= len(points):
                return points[:n].astype(model.dtype)
            if self.source is None and sizes in MNIST:
                return data.mnist("train", n=n, folder=self.folder, dtype=model.dtype.name)[0].reshape(n, *sizes)
        if self.source is None and self.shape is None:
            raise OptionError(
                f"no samples for a network that takes {sizes}, which MNIST's images are not",
                allowed="--samples FILE, which ends in .npy, .npz, .csv, .parquet or .safetensors; or --samples random",
                remedy="name a file, or ask for random samples",
            )
        return random_batch(model, sizes, n) if foreign else random_batch(model, sizes, n, self.seed)


MNIST = ((784,), (1, 28, 28))
"""Shapes of samples that MNIST's images have."""
MNIST_IMAGES = 60_000
"""Images to train on, in MNIST."""


def read(named: Named, model: Any, *, cast: bool, without: Named | None = None) -> Any:
    """The samples of a file, of the dtype that the model takes; text has none, and takes the model's.

    Raises:
        DataError: as `read_array`.
        DTypeError: another dtype, and not `cast`.
    """
    from udlbridge.networks.foreign import ForeignNetwork

    foreign = isinstance(model, ForeignNetwork)
    found = read_array(named, several=foreign, without=without)
    if isinstance(found, dict):
        found = _inputs(found, model, named, cast=cast)
    if isinstance(found, dict):
        return found
    if found.dtype == model.dtype or model.takes_tokens:
        return found
    if isinstance(model, ForeignNetwork) and found.dtype.kind in "iub":
        return _integers(found, model, named, cast=cast)
    return fitted(found, model.dtype, named, cast=cast)


def _inputs(found: dict[str, np.ndarray], model: ForeignNetwork, named: Named, *, cast: bool) -> Any:
    """The arrays of a file, where they have the names of what the module takes; a single one may have any."""
    from udlbridge.errors import DataError, DTypeError, InputError

    floats = {name: value.astype(model.dtype) for name, value in found.items() if value.dtype.kind == "f"}
    try:
        model.checked_batch({**found, **floats} if cast else found, "x")
    except DTypeError as error:
        raise DTypeError(
            error.given, allowed=error.allowed, remedy="add --cast, which converts the samples, or --dtype"
        ) from error
    except InputError as error:
        if len(found) == 1:
            return next(iter(found.values()))
        if not re.search(r"unexpected keyword argument|required positional argument", error.given):
            raise
        names = ", ".join(found)
        raise DataError(
            f"{named} holds {names}, and {error.given}",
            allowed="arrays that are called as the arguments of forward, or one array",
            remedy=f"name the one that is meant, as {named}:{next(iter(found))}",
        ) from error
    return {**found, **floats} if cast else found


def _integers(found: np.ndarray, model: ForeignNetwork, named: Named, *, cast: bool) -> np.ndarray:
    """Integers as they are where the module takes them, tokens say; else as numbers of its dtype, if `cast`."""
    from udlbridge.errors import DTypeError, UDLBridgeError
    from udlbridge.networks.foreign import wants_tokens

    try:
        model.checked_batch(found, "x")
        return found
    except UDLBridgeError as error:
        numbers = found.astype(model.dtype)
        try:
            model.checked_batch(numbers, "x")
        except UDLBridgeError as other:
            raise (error if wants_tokens(other) else other) from None
        if cast:
            return numbers
        raise DTypeError(
            f"{named} has dtype {found.dtype}, the network takes {model.dtype}",
            allowed="one dtype for both: it is never changed silently",
            remedy="add --cast, which converts the samples",
        ) from error


def fitted(found: np.ndarray, dtype: np.dtype[Any], named: Named, *, cast: bool) -> np.ndarray:
    """Samples of a file in the dtype of the network; text has none, and takes it.

    Raises:
        DTypeError: another dtype, and not `cast`; or no numbers.
    """
    from udlbridge.errors import DTypeError

    if found.dtype.kind not in "iufb":
        raise DTypeError(f"{named} has dtype {found.dtype}", allowed="numbers", remedy="name another array or column")
    if found.dtype == dtype or cast or named.path.suffix.lower() == ".csv":
        return found.astype(dtype, copy=False)
    widen = (
        f"--dtype {found.dtype}, which converts the network, or " if found.dtype.name in ("float32", "float64") else ""
    )
    raise DTypeError(
        f"{named} has dtype {found.dtype}, the network has {dtype}",
        allowed="one dtype for both: it is never changed silently",
        remedy=f"add {widen}--cast, which converts the samples",
    )


cast_option = click.option("--cast", is_flag=True, help="Convert the samples of a file to the dtype of the network.")


def sample_options(usual: int, of_file: int | None = None) -> Callable[[Command], Command]:
    """Options of a command for its samples, which it gets as one `Samples`, called `sample_options`.

    Args:
        usual: how many are taken without --n.
        of_file: how many of a file; None means all.
    """
    every = "all" if of_file is None else str(of_file)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def packed(
            *,
            n: int | None,
            samples: Any,
            shape: str | None,
            cast: bool,
            folder: Path | None,
            labels: Named | None,
            **others: Any,
        ) -> Any:
            seed = others.get("seed") or 0
            given = Samples(n, usual, of_file, samples, shape, cast, folder, seed, labels)
            return command(sample_options=given, **others)

        options = (
            click.option(
                "--n",
                type=click.IntRange(min=1),
                metavar="N",
                help=f"Number of samples, the first ones.  [default: {usual}; of a file {every}]",
            ),
            click.option(
                "--samples",
                type=_NamedOrRandom(),
                metavar="FILE[:KEY]",
                help="Samples: .npy, .npz, .csv, .parquet or .safetensors, with the name of an array after a colon; "
                "or the word random.  [default: MNIST, where the network takes it]",
            ),
            click.option("--labels", type=NamedArray(), metavar="FILE:KEY", help=LEFT_OUT),
            click.option("--shape", metavar="SIZES", help="Random samples of this shape, as 3,32,32."),
            cast_option,
            data_option,
        )
        for option in reversed(options):
            packed = option(packed)
        return packed

    return decorate


def taken(x: Any, start: int, stop: int | None) -> Any:
    """Some samples, of each input where there are several."""
    return {name: value[start:stop] for name, value in x.items()} if isinstance(x, dict) else x[start:stop]


def as_images(model: Any, x: np.ndarray) -> np.ndarray:
    """MNIST's rows of pixels in the shape in which the network takes images; a module is tried on some.

    Raises:
        ShapeError: it takes none.
    """
    from udlbridge.errors import DTypeError, InputError, ShapeError
    from udlbridge.networks.inputs import checked_samples, output_size

    reasons = []
    for sizes in MNIST:
        images = x.reshape(len(x), *sizes)
        try:
            output_size(model, checked_samples(model, images[:4]).shape[1:])
            return images
        except (ShapeError, InputError, DTypeError) as error:
            reasons.append(error)
    raise ShapeError(
        f"MNIST's images for a network that takes none: {reasons[0].given}",
        allowed=f"without --samples, networks of samples of shape {' or '.join(map(str, MNIST))}",
        remedy="name samples of your own: --samples FILE --labels FILE",
    ) from reasons[0]
