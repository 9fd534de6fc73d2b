"""Networks that come from elsewhere: PyTorch's modules, Flux models, and files of other formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.atomic import writing
from udlbridge.conversion.state_names import by_own_names
from udlbridge.errors import ModelFileError, UDLBridgeError
from udlbridge.networks.archives import check_archive
from udlbridge.networks.files import read_safetensors
from udlbridge.networks.graphs.files import load_network
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model
from udlbridge.networks.specs import parsed_spec, require_buffers
from udlbridge.regular import check_readable
from udlbridge.texts import read_text


def read_any(path: Path) -> Model | Graph:
    """The network in a file of any of the formats, a graph in a .safetensors file too.

    Raises:
        As `read_network` and `Graph.load`.
    """
    return read_network(path) if path.suffix in READERS and path.suffix != ".safetensors" else load_network(path)


def read_network(path: Path, spec: Path | None = None) -> Model:
    """The network in a .safetensors, .npz or .pt file; `spec` is a JSON file with the layers, where the file has none.

    Arrays have the model's own names, or those of the state dict of `udlbridge.to_torch`. Nothing in a file can execute
    code.

    Raises:
        ModelFileError: an unknown ending, an unreadable file, or layers that are missing.
        ParameterError: arrays that do not fit the layers, or that are missing.
        TorchUnavailable: a .pt file, and PyTorch is not installed.
    """
    reader = _checked_ending(path, READERS)
    try:
        found, arrays = reader(path)
    except UDLBridgeError:
        raise
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}", remedy="check the path") from None
    except Exception as error:  # a foreign reader may raise anything when a file is damaged
        raise ModelFileError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            allowed="a whole file of arrays alone",
            remedy="save it again: for PyTorch, torch.save(module.state_dict(), path)",
        ) from error
    if spec is not None:
        found = _read_spec(spec)
    if found is None:
        raise ModelFileError(
            f"{path} has arrays and no layers",
            allowed="a JSON file with the layers beside it",
            remedy="name it: `udlbridge convert IN OUT --spec FILE.json`, or Model.load(path, spec=FILE)",
        )
    layers, dtype = parsed_spec(found, str(spec or path))
    arrays = by_own_names(layers, arrays)
    require_buffers(layers, arrays, str(path))
    return Model(layers, arrays, dtype=dtype)


def _read_spec(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}", remedy="check the path") from None
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error})",
            allowed="a JSON file with the layers of a network",
            remedy="write one: `udlbridge convert MODEL.safetensors LAYERS.json`",
        ) from error


def write_network(model: Model, path: Path) -> None:
    """Write a network; the ending is .safetensors, .npz, .pt (a state dict, no layers) or .json (layers, no arrays).

    A .pt file is the state dict of `ub.to_torch(model)`.

    Raises:
        ModelFileError: an unknown ending, a missing folder, or a disk that refuses.
        TorchUnavailable: a .pt file, and PyTorch is not installed.
    """
    writer = _checked_ending(path, WRITERS)
    with writing(path, ModelFileError) as partial:
        writer(model, partial)


def _checked_ending(path: Path, choices: dict[str, Any]) -> Any:
    if path.suffix not in choices:
        raise ModelFileError(
            f"{path} ends in {path.suffix or 'nothing'!r}", allowed=", ".join(choices), remedy="name the format so"
        )
    return choices[path.suffix]


def _read_safetensors(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    metadata, arrays = read_safetensors(path, "model", ModelFileError)
    return metadata.get("udlbridge"), arrays


def _read_npz(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    check_readable(path, links=True)
    check_archive(path)
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array, as a .npy file does")
    with file:
        arrays = {name: file[name] for name in file.files}
    spec = arrays.pop("spec", None)
    return None if spec is None else str(spec), arrays


def _read_pt(path: Path) -> tuple[str | None, dict[str, np.ndarray]]:
    backends.require_torch()
    from udlbridge.conversion.torch_files import read_state

    return None, read_state(path)


def _write_npz(model: Model, path: Path) -> None:
    arrays: dict[str, Any] = dict(model.arrays)
    with path.open("wb") as file:
        np.savez(file, spec=np.array(json.dumps(model.spec())), **arrays)


def _write_pt(model: Model, path: Path) -> None:
    backends.require_torch()
    from udlbridge.conversion.torch_files import write_state

    write_state(model, path)


def _write_json(model: Model, path: Path) -> None:
    path.write_text(json.dumps(model.spec(), indent=2) + "\n", encoding="utf-8")


READERS: dict[str, Callable[[Path], tuple[str | None, dict[str, np.ndarray]]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".pth": _read_pt,
}
"""What reads a file, by its ending: the layers as JSON text, if it has them, and the arrays."""

WRITERS: dict[str, Callable[[Model, Path], None]] = {
    ".safetensors": lambda model, path: model.save(path),
    ".npz": _write_npz,
    ".pt": _write_pt,
    ".pth": _write_pt,
    ".json": _write_json,
}
"""What writes a network to a path, by the ending of the file."""
