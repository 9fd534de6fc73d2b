"""The door for numbers: whatever holds them becomes a NumPy array, or is refused with the reason.

| what comes in | what becomes of it |
|---|---|
| NumPy's arrays, memory maps, and what NumPy reads as an array | as they are, in the byte order of the machine |
| tensors of PyTorch | detached, on the CPU; bfloat16, which NumPy does not have, is refused |
| DataFrames and Series | their array; a column that has gaps, or holds no numbers, is refused by its name |
| sparse matrices of scipy, sparse tensors | dense; in the place of a kernel, which may be large, refused |
| lists and tuples of Python's numbers | these have no dtype, and take the one that is wanted: the model's |
| lists and tuples of arrays, tensors, NumPy's numbers | stacked; these keep their dtype |
| masked arrays | refused: their mask would be lost |
| rows of different length, objects, None, words, dates | refused |

A dtype is not changed here; byte order does not count as one. Whether the numbers fit their purpose, the caller says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from udlbridge.errors import DTypeError, InputError, ShapeError, UDLBridgeError
from udlbridge.texts import kind_of

NUMBERS = "biufc"
"""Kinds of dtypes that are numbers: truth values, integers, floats, complex numbers."""

WORDS = "turn words into numbers first, as np.unique(words, return_inverse=True)[1]"
"""What to do with labels that are words."""

Wanted = np.dtype[Any] | type[np.generic] | None
"""The dtype for Python's numbers; None leaves them as NumPy reads them, float64 or int64."""


def as_array(value: Any, name: str = "x", *, wanted: Wanted = None) -> np.ndarray:
    """The numbers in any container as an array, without a copy where there need not be one.

    Args:
        value: an array, tensor, DataFrame, sparse matrix, list, number; see the table of this module.
        name: what errors call it.
        wanted: the dtype of Python's own numbers, which have none.

    Returns:
        An array of truth values, integers, floats or complex numbers, in native byte order.

    Raises:
        DTypeError: something else than numbers, or tensors of a dtype that NumPy does not have.
        ShapeError: rows of different length.
        InputError: a masked array, something that is not an array, or a number that is too large for `wanted`.
    """
    if isinstance(value, list | tuple):
        array = _of_sequence(value, name, wanted)
    elif _is_plain(value):
        array = _as_wanted(np.asarray(value), name, wanted)
    elif is_tensor(value):
        array = _of_tensor(value, name)
    elif is_sparse(value):
        array = value.toarray()
    elif hasattr(value, "to_numpy") and hasattr(value, "columns"):
        array = _of_frame(value, name)
    elif hasattr(value, "to_numpy") and hasattr(value, "dtype"):
        array = _of_column(value, name)
    else:
        array = _read(value, name)
    if array.dtype.kind not in NUMBERS:
        _refuse_kind(array, value, name, wanted)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_kernel(value: object, name: str = "the kernel") -> Any:
    """A kernel: what is read in blocks (a store, a memory map, an operator) as it is, any other container as an array.

    Arrays keep their byte order, since a memory map must not be read for it: blocks go through `as_array`.

    Raises:
        InputError: a sparse matrix, or as `as_array`.
    """
    if is_sparse(value):
        raise InputError(
            f"{name} is a sparse matrix of shape {value.shape}",  # type: ignore[attr-defined]
            allowed="an array (n, n), or something that is read in blocks, as a kernel store",
            remedy="k.toarray(), if it fits into memory; its eigenvalues alone need no array: "
            "scipy.sparse.linalg.aslinearoperator(k)",
        )
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray) and value.dtype.kind in NUMBERS:
        return np.asarray(value)
    if not hasattr(value, "shape") or isinstance(value, np.ndarray) or is_tensor(value) or hasattr(value, "to_numpy"):
        return as_array(value, name, wanted=np.float64)
    return value


def as_indices(value: object, size: int, name: str = "indices") -> Int[np.ndarray, " r"]:
    """Whole numbers that name some of `size` things, as int64 from 0 on; negative ones count from the end.

    Raises:
        DTypeError: no whole numbers; truth values are none.
        ShapeError: not one axis.
        InputError: a number out of range, or as `as_array`.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "iu" and array.size:  # an empty list has the dtype of no numbers
        remedy = f"np.flatnonzero({name})" if array.dtype.kind == "b" else f"{name}.astype(int)"
        raise DTypeError(f"{name} of dtype {array.dtype}", allowed="whole numbers", remedy=remedy)
    if array.ndim != 1:
        raise ShapeError(f"{name} of shape {array.shape}", allowed="(r,)", remedy=f"np.ravel({name})")
    outside = (array < -size) | (array >= size)
    if outside.any():
        raise InputError(
            f"{name} has the number {array[outside][0]}",
            allowed=f"{-size} to {size - 1}" if size else "none: there is nothing to name",
            remedy="leave it out",
        )
    return array.astype(np.int64) % max(size, 1)


def is_tensor(value: object) -> bool:
    """Whether `value` is a tensor of PyTorch, without importing it: whoever has one has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "Tensor") and isinstance(value, torch.Tensor)


def is_sparse(value: object) -> Any:
    """Whether `value` is a sparse matrix or array of scipy."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(value)


def has_dtype(value: object) -> bool:
    """Whether there is a dtype in `value`, which a list of Python's numbers does not have."""
    if isinstance(value, list | tuple):
        return any(not _is_plain(item) for _, item in _leaves(value))
    return not _is_plain(value)


def _is_plain(value: object) -> bool:
    """Whether it is a number of Python itself; NumPy's float64 is a float too, but has a dtype."""
    return type(value) in (bool, int, float, complex)


def _as_wanted(array: np.ndarray, name: str, wanted: Wanted) -> np.ndarray:
    """Python's numbers in the dtype that is wanted."""
    if wanted is None or array.dtype.kind not in "iuf":
        return array
    with np.errstate(over="ignore"):
        result = array.astype(wanted)
    lost = np.isinf(result) & np.isfinite(array)
    if lost.any():
        raise InputError(
            f"{name} has the number {array[lost].flat[0]:.6g}, which {np.dtype(wanted)} does not hold",
            allowed=f"numbers of {np.dtype(wanted)}",
            remedy="scale it, or give an array of another dtype",
        )
    return result


def _leaves(value: list[Any] | tuple[Any, ...], path: str = "") -> Iterator[tuple[str, Any]]:
    """What is in nested lists and tuples, each with its path, as "[2][0]"."""
    for index, item in enumerate(value):
        if isinstance(item, list | tuple):
            yield from _leaves(item, f"{path}[{index}]")
        else:
            yield f"{path}[{index}]", item


def _of_sequence(value: list[Any] | tuple[Any, ...], name: str, wanted: Wanted) -> np.ndarray:
    """Lists of Python's numbers as NumPy reads them; of arrays and the like, each by itself, and then stacked."""
    plain, typed = [], {}
    for path, item in _leaves(value):
        if _is_plain(item):
            plain.append(item)
        elif item is None or isinstance(item, str | bytes):
            shown = item if item is None else repr(item)
            raise DTypeError(f"{name}{path} is {shown}", allowed="numbers", remedy="clean the data")
        else:
            typed[path] = as_array(item, f"{name}{path}")
    if not typed:
        try:
            array = np.asarray(value)
        except ValueError:
            raise _ragged(name) from None
        return _as_wanted(array, name, wanted)
    # Python's numbers take the dtype of those that they stand among.
    dtype = np.result_type(*(array.dtype for array in typed.values()), *plain)

    def stacked(item: Any, path: str) -> np.ndarray:
        if not isinstance(item, list | tuple):
            return typed[path] if path in typed else np.asarray(item, dtype=dtype)
        parts = [stacked(part, f"{path}[{index}]") for index, part in enumerate(item)]
        if len({part.shape for part in parts}) > 1:
            raise _ragged(name)
        return np.stack(parts) if parts else np.empty(0, dtype=dtype)

    return stacked(value, "")


def _ragged(name: str) -> ShapeError:
    return ShapeError(
        f"{name} has rows of different length",
        allowed="a rectangular array of numbers",
        remedy="pad or cut them to one length",
    )


def _of_tensor(tensor: Any, name: str) -> np.ndarray:
    """A tensor without its graph, from whatever device, layout and conjugation."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    try:
        dense = tensor.detach()
        dense = dense if str(dense.layout) == "torch.strided" else dense.to_dense()
        return np.asarray(dense.numpy(force=True))
    except TypeError:
        raise DTypeError(
            f"{name} is a tensor of {dtype}, which NumPy does not have",
            allowed="float32, float64: a dtype is never changed silently",
            remedy="tensor.to(torch.float32), and the network in float32 too",
        ) from None
    except Exception as error:  # tensors without numbers, as on the meta device, say so in many ways
        raise InputError(
            f"the numbers of {name}, a tensor on {tensor.device}, cannot be read ({error})",
            allowed="tensors that hold numbers",
            remedy="move it to the CPU: .cpu()",
        ) from error


def _of_frame(frame: Any, name: str) -> np.ndarray:
    """The array of a DataFrame; a column of anything but numbers, or with gaps that no number stands for, is named."""
    columns = [frame.iloc[:, i] if hasattr(frame, "iloc") else frame[column] for i, column in enumerate(frame.columns)]
    labelled = zip(frame.columns, columns, strict=True)
    parts = [_of_column(column, f"column {label!r} of {name}") for label, column in labelled]
    if len({part.dtype.kind == "b" for part in parts}) > 1:
        raise DTypeError(
            f"{name} has columns of numbers and columns of truth values",
            allowed="columns of numbers",
            remedy='frame.astype("float64"), or another dtype of your choice',
        )
    array = np.asarray(frame.to_numpy())
    # Columns whose numbers mark gaps in their own way become objects in pandas, even without a gap.
    return array if array.dtype.kind in NUMBERS or not parts else np.column_stack(parts)


def _of_column(column: Any, name: str) -> np.ndarray:
    """The numbers of a Series. One with a dtype of pandas' own may have gaps, which NumPy would turn into NaN."""
    gaps = not isinstance(column.dtype, np.dtype) and bool(
        column.isna().any() if hasattr(column, "isna") else column.null_count()
    )
    part = _read(column, name)
    if gaps or part.dtype.kind not in NUMBERS:
        raise DTypeError(
            f"{name} {'has gaps' if gaps else 'does not hold numbers alone'} (its dtype is {column.dtype})",
            allowed="numbers",
            remedy="leave it out, encode it as numbers, or fill the gaps",
        )
    return part


def _read(value: object, name: str) -> np.ndarray:
    """What NumPy makes of it."""
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"{name} is a masked array: its mask would be lost",
            allowed="an array without a mask",
            remedy="say what stands for the missing numbers, as with .filled(0.0), or leave them out",
        )
    try:
        return np.asarray(value)
    except UDLBridgeError:
        raise
    except Exception as error:  # an array of another library: it may refuse in any way
        raise InputError(
            f"{name} is {kind_of(value)} that NumPy cannot read ({type(error).__name__}: {error})",
            allowed="arrays of numbers",
            remedy="convert it to a NumPy array first",
        ) from error


def _refuse_kind(array: np.ndarray, value: object, name: str, wanted: Wanted) -> None:
    """Refuse what is not an array of numbers.

    Raises:
        DTypeError: always.
    """
    target = np.dtype(wanted or np.float64)
    if array.ndim == 0 and array.dtype.kind == "O":
        found = "None" if value is None else f"{kind_of(value)}"
        raise DTypeError(f"{name} is {found}", allowed=f"an array of numbers, as of {target}", remedy="give one")
    remedies = {"O": f"np.stack(rows).astype(np.{target})", "U": WORDS, "S": WORDS}
    raise DTypeError(
        f"{name} of dtype {array.dtype}",
        allowed=f"a rectangular array of numbers, as of {target}",
        remedy=remedies.get(array.dtype.kind, "convert it to numbers first"),
    )
