"""What reads files that others may have written: for each a whole file, and the reading of it."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import udlbridge as ub
from udlbridge import config
from udlbridge.cli.sample_files import Named, load_array, read_array
from udlbridge.conversion.formats import read_network, write_network
from udlbridge.data import idx
from udlbridge.errors import NumericalError
from udlbridge.networks.graphs.values import PerSample

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


GRAPH = ub.Graph(
    [
        ub.Node("rows", "embedding", ("table", "x"), {"padding": -1}),
        ub.Node("flat", "reshape", ("rows",), {"shape": (PerSample(), 6)}),
        ub.Node("y", "tanh", ("flat",)),
    ],
    "y",
    params={"table": np.random.default_rng(2).standard_normal((5, 3))},
    sample_shape=(2,),
    tokens=True,
)


def _graph(folder: Path) -> Path:
    GRAPH.save(folder / "g.safetensors")
    return folder / "g.safetensors"


def _samples(folder: Path) -> Path:
    np.savez(folder / "x.npz", ids=np.arange(12).reshape(4, 3), mask=np.ones((4, 3), bool))
    return folder / "x.npz"


def _tensors(folder: Path) -> Path:
    save_file({"ids": np.arange(12).reshape(4, 3), "mask": np.ones((4, 3), bool)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def _table(folder: Path) -> Path:
    (folder / "x.csv").write_text("width,height\n1.5,2\n3.25,4\n-1e3,5\n", encoding="utf-8")
    return folder / "x.csv"


def _module() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))


def _module_run(folder: Path) -> Path:
    run = ub.train(_module(), X, np.arange(12) % 3, epochs=2, batch_size=4, optimizer="adam", progress=False)
    run.save(folder / "r.safetensors")
    return folder / "r.safetensors"


KERNEL = ub.ntk(MODEL, X, backend="reference").astype(np.float64)


def _solve(path: Path, iterations: int = 1000) -> object:
    """What a damaged state may not change: the solution, to the tolerance."""
    y = np.arange(24.0).reshape(12, 2)
    found = ub.predict.solve(KERNEL, y, diag_reg=1e-2, rank=2, max_iterations=iterations, state=path, progress=False)
    assert float(found.residuals.max()) <= 2e-6
    return found


def _solver_state(folder: Path) -> Path:
    with contextlib.suppress(NumericalError):
        _solve(folder / "s.safetensors", 3)
    return folder / "s.safetensors"


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
    "graph": Reader(_graph, lambda path: ub.Graph.load(path)),
    "network": Reader(_model, lambda path: read_network(path)),
    "module run": Reader(_module_run, lambda path: ub.TrainingRun.load(path, model=_module())),
    "solver state": Reader(_solver_state, _solve),
    "npz samples": Reader(_samples, lambda path: read_array(Named(path), several=True)),
    "safetensors samples": Reader(_tensors, lambda path: read_array(Named(path), several=True)),
    "csv samples": Reader(_table, lambda path: read_array(Named(path))),
    "npz": Reader(_npz, lambda path: read_network(path)),
    "spec": Reader(_spec, lambda path: read_network(path.with_name("m.npz"), path)),
    "idx": Reader(_idx, lambda path: idx.parse(idx.read_bytes(path, 60_008), str(path))),
    "npy": Reader(_array, lambda path: load_array(path, "an array")),
    "config": Reader(_config, _read_config),
    "pt": Reader(_state, lambda path: read_network(path, path.with_name("layers.json"))),
}

NEED_TORCH = frozenset(("pt", "module run"))
"""Those that cannot do without PyTorch."""


def store(folder: Path) -> Path:
    """A whole store, in one tile or several as `planning.LARGEST_TILE` says."""
    return ub.compute_kernel(MODEL, X, folder / "K.zarr", outputs=0, backend="reference", progress=False).path
