"""The manifest of a store: what the kernel is of, how it is stored, and a checksum that says that nobody edited it.

It is the attribute "udlbridge" of the store's Zarr group. All that a reader relies on is in it, and is proved by the
checksum before it is believed: how many samples count, what they are, how tiles are cut and stored.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from udlbridge.backends.reduction import checked_reduction
from udlbridge.errors import OutputsError, StoreError
from udlbridge.options import whole
from udlbridge.store.files import Files, Url, files_of, no_answer, unanswered
from udlbridge.store.names import METADATA
from udlbridge.store.narrowing import STORAGE
from udlbridge.store.samples import BYTES, DTYPES, FIELD_DTYPES, bytes_of

FORMAT = 2
"""Version of the manifest. It grows when an older reader could misread a newer store."""

KEY = "udlbridge"
"""Name of the attribute."""

METADATA_BYTES = 1 << 26
"""Far more than Zarr's metadata and a manifest ever take: names of parameters, and figures of every run."""


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as JSON gives them back, with their checksum."""
    plain: dict[str, Any] = json.loads(_canonical(fields))
    return {**plain, "checksum": _checksum(plain)}


def read_metadata(files: Files, part: str = "") -> dict[str, Any]:
    """The JSON object in the file that Zarr keeps of an array, or of the group.

    Raises:
        OSError: it cannot be read, or is not a regular file of plausible size.
        ValueError: it is not JSON, or not an object.
    """
    try:
        found = json.loads(files.whole(f"{part}/{METADATA}" if part else METADATA, METADATA_BYTES))
    except RecursionError:
        raise ValueError("its JSON is nested without end") from None
    if not isinstance(found, dict):
        raise ValueError(f"{METADATA} is not a JSON object")
    return found


def read_manifest(folder: Path | Url, files: Files | None = None) -> dict[str, Any]:
    """The manifest of the store in a folder or at a URL, proved by its checksum.

    `files`: those that are there, if they are open.

    Raises:
        StoreError: there is no store, it may not be read, it has another format, or its manifest is damaged.
    """
    files = files_of(folder) if files is None else files
    try:
        files.check_there()
        manifest = read_metadata(files)["attributes"][KEY]
        version = manifest["format"]
    except PermissionError as error:
        raise StoreError(
            f"{folder} cannot be read: permission denied ({error})",
            allowed="a store whose folders and files this user may read",
            remedy="ask its owner to change their permissions",
        ) from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        if unanswered(error):
            raise no_answer(folder, error) from None
        raise StoreError(
            f"{folder} is not a kernel store ({_lacking(error)})",
            allowed="a folder that `udlbridge kernel --out` wrote",
            remedy=f"check the path; if it was one, take its {METADATA} from a copy",
        ) from None
    if version != FORMAT:
        raise StoreError(
            f"{folder} has format {version!r}",
            allowed=str(FORMAT),
            remedy="update udlbridge, or compute the kernel again: older formats could not prove what they hold",
        )
    fields = {name: value for name, value in manifest.items() if name != "checksum"}
    if manifest.get("checksum") != _checksum(fields):
        raise _damaged(folder, "its checksum is another one: it was edited, or bits of it changed")
    wrong = [name for name, fits in _FIELDS.items() if not fits(fields.get(name))]
    if not wrong:
        try:
            checked_reduction(fields["outputs"], fields["n_outputs"])
        except OutputsError:
            wrong = ["outputs"]
    if wrong:
        raise _damaged(folder, f"{', '.join(wrong)} cannot be")
    return fields


def _lacking(error: Exception) -> str:
    """Why there is no manifest."""
    if isinstance(error, FileNotFoundError) and error.errno is not None:
        return f"its {METADATA} is missing, which holds the manifest"
    return f"its {METADATA} has no {error}" if isinstance(error, KeyError) else str(error)


def metadata_differs(folder: Path | Url, part: str, why: str) -> StoreError:
    """The error for metadata of an array that is not what the manifest says."""
    return StoreError(
        f"{folder / part / METADATA} is not what the manifest of the store says ({why})",
        allowed="the metadata that udlbridge wrote",
        remedy="take that file from a copy of the store; nothing of the store was changed",
    )


def _damaged(folder: Path | Url, why: str) -> StoreError:
    return StoreError(
        f"the manifest of {folder} is damaged ({why})",
        allowed="a manifest as udlbridge wrote it",
        remedy=f"take {METADATA} from a copy of the store, or compute the kernel again; nothing of it was changed",
    )


def _checksum(fields: dict[str, Any]) -> str:
    """SHA-256 of the fields in one way of writing them, which neither order nor spaces change."""
    try:
        return hashlib.sha256(_canonical(fields).encode()).hexdigest()
    except (ValueError, RecursionError):  # NaN, lone surrogates: nothing that was signed
        return ""


def _canonical(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _is_count(value: object) -> bool:
    return _is_amount(value, 1, 1 << 40)


def _is_amount(value: object, least: int = 0, bound: int = 1 << 50) -> bool:
    """Whether it is a whole number of at least `least`, below `bound`."""
    found = whole(value)
    return found is not None and least <= found < bound


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_samples(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("shape"), list)
        and all(map(_is_count, value["shape"]))
        and isinstance(value.get("dtype"), str)
        and value["dtype"] in DTYPES
        and _is_count(value.get("rows"))
        and (value["dtype"] == BYTES) == ("fields" in value)
        and ("fields" not in value or _are_fields(value["fields"], value["shape"]))
    )


def _are_fields(value: object, shape: list[int]) -> bool:
    """Whether these are inputs whose bytes have that shape."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(map(_is_field, value))
        and len({name for name, _, _ in value}) == len(value)
        and (len(value) == 1 or all(name for name, _, _ in value))
        and shape == [bytes_of(value)]
    )


def _is_field(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and value[1] in FIELD_DTYPES
        and isinstance(value[2], list)
        and all(map(_is_count, value[2]))
    )


def _is_module(value: object) -> bool:
    """None for the store of a `Model`; of a module its class and the number of parameters that are summed over."""
    return value is None or (
        isinstance(value, dict) and _is_text(value.get("name")) and _is_amount(value.get("n_params"))
    )


def _is_infinite(value: object) -> bool:
    """None for the store of a finite network; of a kernel at infinite width, what it was computed with."""
    return value is None or (
        isinstance(value, dict)
        and set(value) == {"w_std", "b_std", "parameterization", "get"}
        and all(isinstance(value[name], float) and 0 <= value[name] < math.inf for name in ("w_std", "b_std"))
        and value["w_std"] > 0
        and value["parameterization"] in ("ntk", "standard")
        and value["get"] in ("nngp", "ntk")
    )


def _is_plan(value: object) -> bool:
    return isinstance(value, dict) and _is_text(value.get("method")) and _is_count(value.get("n"))


_FIELDS: dict[str, Callable[[object], bool]] = {
    "id": _is_text,
    "model": _is_text,
    "model_bytes": _is_amount,
    "module": _is_module,
    "infinite": _is_infinite,
    "data": _is_text,
    "samples": _is_samples,
    "n": _is_count,
    "n_outputs": _is_count,
    "dtype": lambda value: value in ("float32", "float64"),
    "storage": lambda value: isinstance(value, str) and value in STORAGE,
    "tile": _is_count,
    "complete": lambda value: isinstance(value, bool),
    "storage_error": lambda value: isinstance(value, float),
    "backend": _is_text,
    "plan": _is_plan,
    "params": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}
"""What is read from the manifest without another look."""
