"""What reads files that others may have written: for each a whole file, and the reading of it."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import udlbridge as ub
from udlbridge import config
from udlbridge.cli.sample_files import load_array
from udlbridge.conversion.formats import read_network, write_network
from udlbridge.data import idx

MODEL = ub.Model([ub.Dense(5, 4, "tanh"), ub.Residual([ub.Dense(4, 4)]), ub.Dense(4, 3)])
X = np.random.default_rng(1).standard_normal((12, 5)).astype("float32")


@dataclass(frozen=True)
class Reader:
    """`make` writes a whole file into a folder and returns its path, `read` reads it."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def _model(folder: Path) -> Path:
    MODEL.save(folder / "m.safetensors")
    return folder / "m.safetensors"


def _npz(folder: Path) -> Path:
    write_network(MODEL, folder / "m.npz")
    return folder / "m.npz"


def _spec(folder: Path) -> Path:
    write_network(MODEL, folder / "layers.json")
    _npz(folder)
    return folder / "layers.json"


def _state(folder: Path) -> Path:
    write_network(MODEL, folder / "m.pt")
    write_network(MODEL, folder / "layers.json")
    return folder / "m.pt"


def _run(folder: Path) -> Path:
    labels = np.arange(12) % 3
    run = ub.train(MODEL, X, labels, epochs=2, batch_size=4, optimizer="adam", backend="reference", progress=False)
    run.save(folder / "r.safetensors")
    return folder / "r.safetensors"


def _idx(folder: Path) -> Path:
    labels = np.random.default_rng(0).integers(0, 10, 500).astype(np.uint8)
    with gzip.open(folder / "labels.gz", "wb") as file:
        file.write(struct.pack(">II", idx.LABELS_MAGIC, len(labels)) + labels.tobytes())
    return folder / "labels.gz"


def _array(folder: Path) -> Path:
    np.save(folder / "k.npy", np.eye(5))
    return folder / "k.npy"


def _config(folder: Path) -> Path:
    path = folder / "config.toml"
    path.write_text(
        '# mine\n[julia]\nexe = "/usr/bin/julia"\nproject = "/env"\n[other]\nlevel = 3\nname = "\U0001f600"\n'
    )
    return path


def _read_config(path: Path) -> object:
    """Read, and changed: what is written has to be read again."""
    before = os.environ.get("UDLBRIDGE_CONFIG")
    os.environ["UDLBRIDGE_CONFIG"] = str(path)
    try:
        found = config.julia()
        config.write_julia(Path("/other/julia"), Path("/other/env"))
        assert config.julia() == ("/other/julia", "/other/env")
        return found
    finally:
        os.environ.pop("UDLBRIDGE_CONFIG")
        if before is not None:
            os.environ["UDLBRIDGE_CONFIG"] = before


READERS: dict[str, Reader] = {
    "model": Reader(_model, lambda path: ub.Model.load(path)),
    "run": Reader(_run, lambda path: ub.TrainingRun.load(path)),
    "npz": Reader(_npz, lambda path: read_network(path)),
    "spec": Reader(_spec, lambda path: read_network(path.with_name("m.npz"), path)),
    "idx": Reader(_idx, lambda path: idx.parse(idx.read_bytes(path, 60_008), str(path))),
    "npy": Reader(_array, lambda path: load_array(path, "an array")),
    "config": Reader(_config, _read_config),
    "pt": Reader(_state, lambda path: read_network(path, path.with_name("layers.json"))),
}


def store(folder: Path) -> Path:
    """A whole store, in one tile or several as `planning.LARGEST_TILE` says."""
    return ub.compute_kernel(MODEL, X, folder / "K.zarr", outputs=0, backend="reference", progress=False).path
