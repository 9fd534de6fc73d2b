"""MNIST-1D as arrays: the files of a course, or what the data set's generator makes.

The course's files are in the repository udlbook/udlbook on GitHub, in the folder CM20315/Data, under the licence
CC BY-NC-ND 4.0, so they are fetched and not shipped. The generator (package `mnist1d`, Apache 2.0) makes data of the
same kind, but not the same: a network trained on them has other errors.

Source: Greydanus (2020), "Scaling down deep learning".
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from udlbridge.config import switched_on
from udlbridge.data import sources
from udlbridge.errors import DataError
from udlbridge.paths import user_path
from udlbridge.regular import check_readable
from udlbridge.words import DtypeWord

SHA256: dict[str, str] = {
    "train_data_x.npy": "ff0ea506fd4a77f8f9f94c541e8961699765adaf99b81aebed31a52b6caf12b8",
    "train_data_y.npy": "1a369473194224cf7db90e033ac03c9719ce81a7852085523e6314cae988986e",
    "val_data_x.npy": "1230850c042247fb5a43591fb6aa95c8060be0350c293c0996f481197100e12c",
    "val_data_y.npy": "5753fa9e7c20badfa410fb40ea30348e6f2734731153b2fa42e882025a4f6c7a",
}
"""SHA-256 of each file: 4,000 training and 2,000 validation samples, one in each column of x (40, n)."""

REPOSITORY = "https://raw.githubusercontent.com/udlbook/udlbook/a8fe82b5e155cb4f42415d2461ffa23224b1173b/CM20315/Data/"


@dataclass(frozen=True, eq=False, repr=False)
class MNIST1D:
    """Samples of 40 numbers in ten classes: x (n, 40) and y (n,), to train and to validate with.

    `origin`: "files" of the course, or the "generator".
    """

    x: Float[np.ndarray, "n 40"]
    y: Int[np.ndarray, " n"]
    x_validation: Float[np.ndarray, "m 40"]
    y_validation: Int[np.ndarray, " m"]
    origin: str

    def __repr__(self) -> str:
        return (
            f"MNIST-1D from {'the ' * (self.origin != 'files')}{self.origin}: {len(self.x):,} samples to train with, "
            f"{len(self.x_validation):,} to validate, {self.x.dtype}"
        )


def mnist1d(*, folder: str | os.PathLike[str] | None = None, dtype: DtypeWord = "float32") -> MNIST1D:
    """The MNIST-1D data of a course, or else new data of the same kind.

    Sources, in order: `folder`; the folder $UDLBRIDGE_DATA or its folder `mnist1d`, if any of the four files are there;
    the user's cache; a download, verified by SHA-256; the generator, if the package `mnist1d` is installed, which is
    then said.

    Args:
        folder: where the four files are; nothing else is tried.
        dtype: "float32" or "float64".

    Raises:
        DataError: no source has the data, or what it has is not what the course used; the file is named.
    """
    source = _folder_of_environment() if folder is None else user_path(folder)
    if source is not None:
        files = _read(source)
    else:
        found = _fetched(sources.cache_folder().with_name("mnist1d"))
        if isinstance(found, str):
            return _generated(found, dtype)
        files = found
    x, y, x_held, y_held = (np.load(io.BytesIO(files[name]), allow_pickle=False) for name in SHA256)
    return MNIST1D(
        _samples(x.T, dtype), y.astype(np.int64), _samples(x_held.T, dtype), y_held.astype(np.int64), "files"
    )


def _folder_of_environment() -> Path | None:
    """The folder that UDLBRIDGE_DATA names, or the one in it, if this data set is there; it may hold others."""
    named = os.environ.get("UDLBRIDGE_DATA")
    for candidate in (user_path(named), user_path(named) / "mnist1d") if named else ():
        if any((candidate / name).is_file() for name in SHA256):
            return candidate
    return None


def _samples(x: np.ndarray, dtype: DtypeWord) -> np.ndarray:
    """Rows of samples; they are rounded to float32 first, as the course does it, so that both dtypes are the same."""
    return np.ascontiguousarray(x.astype(np.float32).astype(dtype))


MOST_BYTES = 1 << 24
"""Far more than the largest of the four files has."""


def _read(folder: Path) -> dict[str, bytes]:
    """The verified content of the four files in a folder."""
    files = {}
    for name, expected in SHA256.items():
        try:
            # A pipe would be waited for without end, and a larger file is none of these.
            if check_readable(folder / name, links=True) > MOST_BYTES:
                raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES:,} bytes")
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"{folder / name} cannot be read ({error.strerror})",
                allowed=f"a folder with {', '.join(SHA256)}",
                remedy="correct --data or UDLBRIDGE_DATA, or leave it out",
            ) from error
        digest = hashlib.sha256(files[name]).hexdigest()
        if digest != expected:
            raise DataError(
                f"{folder / name} has SHA-256 {digest}", allowed=expected, remedy="remove the file and get it again"
            )
    return files


@cache
def _fetched(folder: Path) -> dict[str, bytes] | str:
    """The files in the cache, downloaded if need be; or why that failed, which is found out once in a process."""
    import pooch

    if not all((folder / name).is_file() for name in SHA256):
        if switched_on(sources.NO_DOWNLOAD):
            return f"it is not in the cache, and {sources.NO_DOWNLOAD} forbids a download"
        pooch.get_logger().setLevel("ERROR")
        print("udlbridge: downloading MNIST-1D (2 MB, CC BY-NC-ND 4.0) from udlbook/udlbook", file=sys.stderr)
        try:
            for name, expected in SHA256.items():
                transport = pooch.HTTPDownloader(timeout=15)
                pooch.retrieve(REPOSITORY + name, f"sha256:{expected}", name, folder, downloader=transport)
        except Exception as error:  # pooch lets through whatever its transport raises
            return f"it could not be downloaded ({type(error).__name__})"
    return _read(folder)


def _generated(reason: str, dtype: DtypeWord) -> MNIST1D:
    """4,000 and 1,000 new samples."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise DataError(
            f"MNIST-1D cannot be had: {reason}, and the package mnist1d is not installed",
            allowed=f"a folder with {', '.join(SHA256)}",
            remedy='name that folder with --data or UDLBRIDGE_DATA, or pip install "udlbridge[practicals]"',
        ) from error
    print(
        f"udlbridge: the MNIST-1D files of the course are not to be had: {reason}. "
        "The generator makes others instead, with errors of their own.",
        file=sys.stderr,
    )
    before = np.random.get_state()  # noqa: NPY002 - the package seeds NumPy's global generator
    generated = make_dataset(get_dataset_args())
    np.random.set_state(before)  # noqa: NPY002
    x, x_held = (_samples(generated[key], dtype) for key in ("x", "x_test"))
    y, y_held = (generated[key].astype(np.int64) for key in ("y", "y_test"))
    return MNIST1D(x, y, x_held, y_held, "generator")
