"""Files of arrays in the safetensors format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from udlbridge.atomic import writing
from udlbridge.errors import UDLBridgeError
from udlbridge.regular import check_readable

DTYPES = frozenset(("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64", "C64"))
"""The dtypes of safetensors that NumPy has too."""


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str], error: type[UDLBridgeError]
) -> None:
    """Write arrays by name, and texts by name, as one safetensors file.

    Raises:
        error: the folder is missing, or the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with writing(path, error) as partial:
        try:
            save_file(
                {name: np.asarray(value, order="C") for name, value in arrays.items()}, partial, metadata=metadata
            )
        except SafetensorError as failure:
            raise OSError(str(failure)) from failure


def read_safetensors(
    path: Path, kind: str, error: type[UDLBridgeError], dtype: str | None = None
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The texts and the arrays of a safetensors file, by name. Nothing in the file can execute code.

    Args:
        path: the file.
        kind: what it should be, in words for the errors: "model", "run".
        error: the class of the errors.
        dtype: in which half precision comes; without it, float16 stays and bfloat16 is refused.

    Raises:
        error: missing, truncated, of another format, or arrays of a dtype that NumPy does not have.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # By itself safetensors says of a protected file that it is not there, and waits for whoever writes to a pipe.
        check_readable(path, links=True)
        with safe_open(str(path), framework="numpy") as file:
            arrays = {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                stored = file.get_slice(name).get_dtype()
                if stored == "BF16" and dtype is not None:
                    arrays[name] = _bfloat16(path, name).astype(dtype)
                    continue
                if stored not in DTYPES:
                    raise error(
                        f"{path}: {name} has dtype {stored}, which NumPy does not have",
                        allowed="float32, float64; bfloat16 with dtype=",
                        remedy='say dtype="float32", or convert it before it is saved, in PyTorch by module.float()',
                    )
                value = file.get_tensor(name)
                arrays[name] = value.astype(dtype) if stored == "F16" and dtype is not None else value
            return file.metadata() or {}, arrays
    except FileNotFoundError:
        raise error(f"there is no {kind} file {path}", remedy="check the path") from None
    except PermissionError as failure:
        raise error(
            f"{path} cannot be read: permission denied ({failure})",
            allowed=f"a {kind} file that this user may read",
            remedy="change its permissions, or ask its owner to",
        ) from failure
    except (SafetensorError, OSError) as failure:
        raise error(
            f"{path} is not a readable safetensors file ({failure})",
            allowed=f"a whole {kind} file",
            remedy="copy or save it again: it may be truncated",
        ) from failure


def _bfloat16(path: Path, name: str) -> np.ndarray:
    """An array of bfloat16, the upper halves of float32, of a file that safetensors has found to be whole."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))[name]
        start, stop = header["data_offsets"]
        file.seek(8 + length + start)
        upper = np.frombuffer(file.read(stop - start), "<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(header["shape"])
