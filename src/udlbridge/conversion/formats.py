"""Networks that come from elsewhere: PyTorch's modules, Flux models, and files of other formats."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.atomic import writing
from udlbridge.conversion.checkpoints import hint, stripped
from udlbridge.conversion.state_names import by_own_names
from udlbridge.errors import ModelFileError, UDLBridgeError
from udlbridge.networks.archives import check_archive
from udlbridge.networks.files import read_safetensors
from udlbridge.networks.frozen import OWN
from udlbridge.networks.graphs.files import is_graph, load_network
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model
from udlbridge.networks.parameters import checked_dtype
from udlbridge.networks.specs import parsed_spec, require_buffers
from udlbridge.paths import user_path
from udlbridge.regular import check_readable
from udlbridge.texts import read_text
from udlbridge.words import DtypeWord, FloatWord

Read = tuple[str | None, dict[str, np.ndarray], bool]
"""The layers as JSON text, if a file has them, the arrays by name, and whether Lightning wrote it."""


def read_any(path: Path) -> Model | Graph:
    """The network in a file of any of the formats, a graph in a .safetensors file too.

    Raises:
        As `read_network` and `Graph.load`.
    """
    return load_network(path) if path.suffix == OWN else read_network(path)


def read_network(
    path: Path, spec: Path | None = None, strip: str | None = None, dtype: DtypeWord | None = None
) -> Model:
    """The network in a .safetensors, .npz or .pt file; `spec` is a JSON file with the layers, where the file has none.

    Arrays have the model's own names, or those of the state dict of `udlbridge.to_torch`. Nothing in a file can execute
    code. `strip` and `dtype` are those of `Model.load`.

    Raises:
        ModelFileError: an unknown ending, an unreadable file, or layers that are missing.
        ParameterError: arrays that do not fit the layers, or that are missing.
        TorchUnavailable: a .pt file, and PyTorch is not installed.
    """
    name = None if dtype is None else checked_dtype(dtype)
    return _layered(path, _read(path, name), spec, strip, name)


def read_either(
    path: Path, spec: Path | None = None, strip: str | None = None, dtype: DtypeWord | None = None
) -> Model | Graph:
    """As `read_network`, and the graph of a .safetensors file too, which has neither a `spec` nor a `strip`.

    Raises:
        As `read_network` and `Graph.load`.
    """
    name = None if dtype is None else checked_dtype(dtype)
    read = _read(path, name)
    if not is_graph(read[0]):
        return _layered(path, read, spec, strip, name)
    if spec is not None or strip is not None:
        raise ModelFileError(
            f"{path} holds a graph, whose operations and names are its own",
            allowed="layers, or names to strip, for arrays alone", remedy="leave both out",
        )  # fmt: skip
    graph = Graph.from_spec(read[0] or "", read[1], str(path))
    return graph if name is None else graph.astype(name)


def _layered(path: Path, read: Read, spec: Path | None, strip: str | None, name: FloatWord | None) -> Model:
    """The model of layers that a file has, as `read_network` says."""
    found, arrays, lightning = read
    if spec is not None:
        found = _read_spec(spec)
    if found is None:
        raise ModelFileError(
            f"{path} has arrays and no layers",
            allowed="a JSON file with the layers beside it",
            remedy="name it: `udlbridge convert IN OUT --spec FILE.json`, or Model.load(path, spec=FILE); it is what "
            'model.save("FILE.json") writes, and .safetensors holds both',
        )
    layers, own = parsed_spec(found, str(spec or path))
    arrays = by_own_names(layers, stripped(arrays, strip, lightning, path))
    if strip is None and (words := hint(list(arrays), lightning)):
        raise ModelFileError(f"{path}: {words}", allowed="names of the layers", remedy="say so, or rename the arrays")
    arrays = _converted(arrays, name)
    require_buffers(layers, arrays, str(path))
    return Model(layers, arrays, dtype=name or own)


def read_weights(
    path: str | os.PathLike[str], *, strip: str | None = None, dtype: DtypeWord | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a file by name, as a state dict or a checkpoint has them. Nothing in a file can execute code.

    Args:
        path: a .safetensors, .npz, .pt or .pth file. A checkpoint's state dict is found in it.
        strip: what to take off the names: "auto" for what wrappers put before them ("module.", "_orig_mod.",
            Lightning's attribute), or a prefix that all have.
        dtype: "float32" or "float64", to which real numbers are converted; bfloat16 is read in no other way.

    Raises:
        ModelFileError: an unknown ending, or an unreadable file; bfloat16 without a dtype.
        DTypeError: another dtype.
        OptionError: a prefix that not all names have.
        TorchUnavailable: a .pt file, and PyTorch is not installed.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = mkdtemp() + "/net.safetensors"
        >>> ub.Model([ub.Dense(2, 1)]).save(path)
        >>> ub.read_weights(path, dtype="float64")["0.bias"].dtype
        dtype('float64')
    """
    file, wanted = user_path(path), None if dtype is None else checked_dtype(dtype)
    _, arrays, lightning = _read(file, wanted)
    return _converted(stripped(arrays, strip, lightning, file), wanted)


def _converted(arrays: dict[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
    if dtype is None:
        return arrays
    return {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in arrays.items()}


def _read(path: Path, dtype: str | None) -> Read:
    """What a reader finds, with its errors as ours."""
    reader = _checked_ending(path, READERS)
    try:
        found: Read = reader(path, dtype)
        return found
    except UDLBridgeError:
        raise
    except FileNotFoundError:
        raise ModelFileError(f"there is no file {path}", remedy="check the path") from None
    except Exception as error:  # a foreign reader may raise anything when a file is damaged
        raise ModelFileError(
            f"{path} cannot be read ({type(error).__name__}: {_first_line(error)})",
            allowed="a whole file of arrays alone",
            remedy="save it again: for PyTorch, torch.save(module.state_dict(), path)",
        ) from error


def _first_line(error: Exception) -> str:
    """What an error says, without the colours and the advice that some libraries add."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]


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


def write_network(model: Model | Graph, path: Path) -> None:
    """Write a network; the ending is .safetensors, .npz, .pt (a state dict, no layers) or .json (layers, no arrays).

    A .pt file is the state dict of `ub.to_torch(model)`. A graph has .safetensors alone.

    Raises:
        ModelFileError: an unknown ending, a missing folder, or a disk that refuses.
        TorchUnavailable: a .pt file, and PyTorch is not installed.
    """
    writer = _checked_ending(path, WRITERS)
    if isinstance(model, Graph):
        model.save(path)
        return
    with writing(path, ModelFileError) as partial:
        writer(model, partial)


def _checked_ending(path: Path, choices: dict[str, Any]) -> Any:
    if path.suffix not in choices:
        raise ModelFileError(
            f"{path} ends in {repr(path.suffix) if path.suffix else 'nothing'}",
            allowed=", ".join(choices),
            remedy=OTHERS.get(path.suffix, "name the format so"),
        )
    return choices[path.suffix]


OTHERS = {
    ".json": "it has layers alone: name it beside a file of arrays, as --spec FILE.json of `udlbridge convert`, or "
    "Model.load(path, spec=FILE)",
    ".py": "name a function that makes the network, as --model net.py:make, or import it",
    ".jl": "name a function that makes the model, as --model net.jl:make, or ub.julia_model(path, name)",
}
"""What to do with files of other endings that may be meant."""


def _read_safetensors(path: Path, dtype: str | None) -> Read:
    metadata, arrays = read_safetensors(path, "model", ModelFileError, dtype)
    return metadata.get("udlbridge"), arrays, False


def _read_npz(path: Path, dtype: str | None) -> Read:
    check_readable(path, links=True)
    check_archive(path, ModelFileError)
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array, as a .npy file does")
    with file:
        arrays = {name: file[name] for name in file.files}
    spec = arrays.pop("spec", None)
    return None if spec is None else str(spec), arrays, False


def _read_pt(path: Path, dtype: str | None) -> Read:
    backends.require_torch()
    from udlbridge.conversion.torch_files import read_state

    return None, *read_state(path, dtype)


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


READERS: dict[str, Callable[[Path, str | None], Read]] = {
    OWN: _read_safetensors,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".pth": _read_pt,
}
"""What reads a file, by its ending, with half precision in a dtype."""

WRITERS: dict[str, Callable[[Model, Path], None]] = {
    OWN: lambda model, path: model.write(path),
    ".npz": _write_npz,
    ".pt": _write_pt,
    ".pth": _write_pt,
    ".json": _write_json,
}
"""What writes a network to a path, by the ending of the file."""
