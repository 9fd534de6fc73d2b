"""What networks that are data have in common: named arrays that do not change, a hash of all, and a file."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from udlbridge.errors import ModelFileError, OptionError
from udlbridge.networks.files import write_safetensors
from udlbridge.networks.init import FLOATS
from udlbridge.paths import user_path
from udlbridge.texts import kind_of
from udlbridge.words import FloatWord

OWN = ".safetensors"
"""The ending of our own files; other formats are read and written by `udlbridge.conversion.formats`."""


def check_own_ending(path: Path, what: str) -> None:
    """Raise `ModelFileError` for another ending than that of our own files, for `what` has no other format."""
    if path.suffix != OWN:
        raise ModelFileError(
            f"{what} as {path.suffix or 'a name without an ending'}: {path}",
            allowed=f"a name that ends in {OWN}",
            remedy=f"name it {path.with_suffix(OWN).name}" if path.name else "name a file",
        )


CALLED = 'say which engine evaluates it: ub.outputs(model, x, backend="torch")'


def other_formats() -> Any:
    """What reads and writes them. It stands above this level, and is loaded by its name, as engines are."""
    return import_module("udlbridge.conversion.formats")


class FrozenNetwork:
    """A network of an architecture in JSON and of arrays, which stay as they are: equal if all of it is."""

    __slots__ = ("_buffers", "_dtype", "_hash", "_params")

    _params: Mapping[str, np.ndarray]
    _buffers: Mapping[str, np.ndarray]
    _dtype: FloatWord
    _hash: str | None

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """Read-only parameters by name, in order."""
        return self._params

    @property
    def buffers(self) -> Mapping[str, np.ndarray]:
        """Read-only arrays that are not trained, by name, in order."""
        return self._buffers

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters, then buffers: all that a file of the network holds."""
        return {**self._params, **self._buffers}

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of every parameter, and of samples and results."""
        return FLOATS[self._dtype]

    @property
    def n_params(self) -> int:
        """P, the number of parameters."""
        return sum(value.size for value in self._params.values())

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refuse to compute: engines do.

        Raises:
            OptionError: always; it names the function that evaluates a network.
        """
        raise OptionError(
            f"{kind_of(self)} called as a function", allowed="data, which computes nothing", remedy=CALLED
        )

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The architecture as JSON-ready data, without arrays."""

    def hash(self) -> str:
        """SHA-256 of the spec and of the bytes of all arrays; computed once, since nothing of it changes."""
        if self._hash is None:
            self._hash = self._computed_hash()
        return self._hash

    @abstractmethod
    def _computed_hash(self) -> str:
        """The hash, computed."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: arrays as tensors by name, the spec as JSON in the metadata.

        The format is that of safetensors: 8 bytes with the length of the header (little-endian), a JSON header that
        gives dtype ("F32", "F64", ...), shape and place of every tensor by name, and the raw numbers in C order.
        `__metadata__` has the spec as JSON text under the key "udlbridge", with a format number: 1 for models of
        layers, which UDLBridge in Julia writes and reads too, 2 for graphs, and 3 for those of several inputs.

        Raises:
            ModelFileError: the disk refuses, or the name has another ending than .safetensors.
        """
        target = user_path(path)
        check_own_ending(target, kind_of(self))
        self.write(target)

    def write(self, target: Path) -> None:
        """`save`, to a file of any name: one that another takes the place of, say. Raises as `save`."""
        write_safetensors(target, self.arrays, {"udlbridge": json.dumps(self.spec())}, ModelFileError)

    def __eq__(self, other: object) -> bool:
        """Equal if the architecture and the bytes of all arrays are the same."""
        if not isinstance(other, type(self)):
            return NotImplemented
        return self is other or self.hash() == other.hash()

    def __hash__(self) -> int:
        return hash(self.hash())
