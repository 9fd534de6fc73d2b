"""Which samples a command computes on: of a file, MNIST's, or random ones where they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.common import Command, check_used, data_option
from udlbridge.cli.fitting import read
from udlbridge.cli.labels import LEFT_OUT, check_left_out
from udlbridge.cli.sample_files import Named, NamedArray, parsed_shape
from udlbridge.texts import counted

if TYPE_CHECKING:
    import numpy as np

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

    def check_used(self, others: Mapping[str, Any]) -> None:
        """Refuse options that these samples, and the networks among the other options, make nothing with.

        Raises:
            UsageError: one of them was typed.
        """
        from udlbridge.networks.models import BY_NAME

        named = isinstance(self.source, Named)
        drawn = self.source == RANDOM or (self.shape is not None and not named)
        has = "--samples random draws them" if self.source == RANDOM else "--shape draws them"
        own = f"--samples {self.source} has its own" if named else has
        check_used("shape", not named, f"is of random samples, and {own}")
        check_used("folder", not named and not drawn, f"is the folder of MNIST's images, and {own}")
        check_used("cast", named or others.get("columns") is not None, "converts samples of a file, and none is named")
        by_name = any(others.get(option) in BY_NAME for option in ("model_name", "other_name"))
        starts = "rank" in others  # a spectrum has a start vector besides
        words = "is of the weights of a network by name and of random samples, and neither is drawn here"
        check_used("seed", by_name or drawn or starts, words)

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

        mnist = self.source is None and self.shape is None and not isinstance(model, ForeignNetwork)
        if mnist and plausible_shape(model) in MNIST and self.count > MNIST_IMAGES:
            raise InputError(
                f"--n {counted(self.count, 'image')} of MNIST",
                allowed=f"at most {MNIST_IMAGES:,}, which are there",
                remedy="ask for fewer, or name other samples: --samples FILE",
            )

    def _first(self, source: Named, found: Any) -> Any:
        from udlbridge.errors import InputError

        lengths = [len(value) for value in found.values()] if isinstance(found, dict) else [len(found)]
        if self.n is not None and self.n > min(lengths):
            raise InputError(
                f"--n {counted(self.n, 'sample')} of {source}",
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
            if self.source is None and self.shape is None and sizes in MNIST:
                return data.mnist("train", n=n, folder=self.folder, dtype=model.dtype.name)[0].reshape(n, *sizes)
        if self.source is None and self.shape is None:
            raise OptionError(
                f"no samples for a network that takes {sizes}, which MNIST's images are not",
                allowed="--samples FILE, which ends in .npy, .npz, .csv, .parquet or .safetensors; or --samples random",
                remedy="name a file, or ask for random samples",
            )
        return random_batch(model, sizes, n, self.seed)


MNIST = ((784,), (1, 28, 28))
"""Shapes of samples that MNIST's images have."""
MNIST_IMAGES = 60_000
"""Images to train on, in MNIST."""


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
            if others.get("kernel_file") is None:  # which refuses all of them
                given.check_used(others)
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
