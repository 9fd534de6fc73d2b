"""The door for numbers by itself: what each kind of container becomes, or why it is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from udlbridge.arrays import as_array, as_indices, as_kernel, has_dtype
from udlbridge.errors import DTypeError, InputError, ShapeError

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 3
SAME = {
    "big-endian": X.astype(">f4"),
    "columns first": np.asfortranarray(X),
    "backwards": X[::-1, ::-1].copy()[::-1, ::-1],
    "every other": np.repeat(X, 2, axis=1)[:, ::2],
    "matrix": np.asmatrix(X),
    "tensor": torch.tensor(X),
    "leaf": torch.tensor(X, requires_grad=True),
    "in the graph": torch.tensor(X, requires_grad=True) * 1,
    "turned": torch.tensor(X.T.copy()).T,
    "negated": torch.complex(torch.zeros(4, 3), -torch.tensor(X)).conj().imag,
    "sparse tensor": torch.tensor(X).to_sparse(),
    "sparse rows": scipy.sparse.csr_matrix(X),
    "sparse array": scipy.sparse.coo_array(X),
    "frame": pd.DataFrame(X, columns=list("abc")),
    "nullable frame": pd.DataFrame(X, columns=list("abc")).astype("Float32"),
    "arrays in a list": list(X),
    "tensors in a list": [torch.tensor(row, requires_grad=True) for row in X],
    "NumPy's numbers in lists": [list(row) for row in X],
    "series in a list": [pd.Series(row) for row in X],
    "lists in a tuple": tuple(X.tolist()),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_numbers_in_any_container(name: str) -> None:
    found = as_array(SAME[name], wanted=np.float32)
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, X)


def ragged_masked() -> Any:
    return [[1.0, np.ma.masked]]


REFUSED = {
    "masked": (np.ma.masked_invalid(X), InputError, r"x is a masked array.*mask would be lost.*filled"),
    "masked row": ([X[0], np.ma.array(X[1])], InputError, r"x\[1\] is a masked array"),
    "masked entry": (ragged_masked(), InputError, r"x\[0\]\[1\] is a masked array"),
    "bfloat16": (torch.ones(2, 2, dtype=torch.bfloat16), DTypeError, r"bfloat16, which NumPy does.*torch\.float32"),
    "bfloat16 row": ([torch.ones(2, dtype=torch.bfloat16)], DTypeError, r"x\[0\] is a tensor of bfloat16"),
    "no numbers": (torch.ones(2, 2, device="meta"), InputError, r"x, a tensor on meta"),
    "ragged": ([[1.0, 2.0], [3.0]], ShapeError, r"rows of different length"),
    "ragged arrays": ([np.ones(2), np.ones(3)], ShapeError, r"rows of different length"),
    "ragged depth": ([1.0, [2.0]], ShapeError, r"rows of different length"),
    "None": (None, DTypeError, r"x is None"),
    "None inside": ([[1.0, 2.0], [3.0, None]], DTypeError, r"x\[1\]\[1\] is None"),
    "words": (["a", "b"], DTypeError, r"x\[0\] is 'a'"),
    "word": ("abc", DTypeError, r"x of dtype <U3"),
    "objects": (X.astype(object), DTypeError, r"dtype object.*np\.stack\(rows\)\.astype\(np\.float64\)"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), DTypeError, r"datetime64"),
    "fields": (np.zeros(2, dtype=[("a", float)]), DTypeError, r"dtype \[\('a'"),
    "dict": ({"a": 1}, DTypeError, r"x is a dict"),
    "generator": ((row for row in X), DTypeError, r"x is a generator"),
    "object column": (
        pd.DataFrame({"age": [1.0, 2.0], "name": ["a", "b"]}),
        DTypeError,
        r"column 'name' of x does not hold numbers alone",
    ),
    "gaps": (
        pd.DataFrame({"a": [1, 2], "b": pd.array([1, None], dtype="Int64")}),
        DTypeError,
        r"column 'b' of x has gaps.*Int64",
    ),
    "date column": (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), DTypeError, r"column 't'.*datetime64"),
    "truth values": (
        pd.DataFrame({"a": [True, False], "b": [1.0, 2.0]}),
        DTypeError,
        r"x has columns of numbers and columns of truth values.*astype",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    value, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        as_array(value)


def test_pythons_numbers_have_no_dtype() -> None:
    for wanted in (np.float32, np.float64):
        assert as_array([[1, 2.5]], wanted=wanted).dtype == wanted
        assert as_array(3, wanted=wanted).dtype == wanted
    assert as_array([1, 2]).dtype == np.int64
    assert as_array([1.0, 2]).dtype == np.float64
    assert as_array([True, False], wanted=np.float32).dtype == bool  # truth values are not numbers
    assert as_array([np.float64(1.0)], wanted=np.float32).dtype == np.float64  # this one has a dtype
    assert as_array([np.float32(1.0), 2.0]).dtype == np.float32
    assert as_array([np.int64(1), 0.5]).tolist() == [1.0, 0.5]
    assert [has_dtype(value) for value in ([1.0], ([1], [2]), 3.0, [np.float32(1)], X, [X])] == [False] * 3 + [True] * 3
    with pytest.raises(InputError, match=r"x has the number 1e\+300, which float32 does not hold"):
        as_array([1.0, 1e300], wanted=np.float32)


def test_no_copy_without_need() -> None:
    for value in (X, X.T, X[::-1]):
        assert np.shares_memory(as_array(value), X)
        assert np.shares_memory(as_kernel(value), X)
    tensor = torch.tensor(X)
    assert np.shares_memory(as_array(tensor), tensor.numpy())


def test_kernels_that_are_read_in_blocks_stay_as_they_are(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "k", dtype=">f8", mode="w+", shape=(3, 3))
    assert np.shares_memory(as_kernel(mapped), mapped)

    class Blocks:
        shape = (3, 3)

    blocks = Blocks()
    assert as_kernel(blocks) is blocks
    assert as_kernel([[1, 0], [0, 1]]).dtype == np.float64
    with pytest.raises(InputError, match=r"sparse matrix of shape \(4, 3\).*toarray.*aslinearoperator"):
        as_kernel(scipy.sparse.csr_array(X))
    with pytest.raises(InputError, match="mask"):
        as_kernel(np.ma.array(X))


def test_other_libraries_are_looked_for_and_not_imported() -> None:
    code = "import sys, udlbridge.arrays as a; a.as_array([1]); print({'torch', 'pandas', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("given", [[0.0, 1.0], [True, False, True], [[0, 1]], 1, [3], [-4], [2**70], "0"])
def test_indices_that_name_nothing_are_refused(given: Any) -> None:
    with pytest.raises((DTypeError, InputError, ShapeError), match="indices") as caught:
        as_indices(given, 3)
    assert caught.value.remedy


def test_indices_count_from_0_on() -> None:
    np.testing.assert_array_equal(as_indices([2, -1, -3], 3), [2, 2, 0])
    np.testing.assert_array_equal(as_indices(np.array([2], np.uint8), 3), [2])
    assert as_indices([], 3).dtype == as_indices([], 0).dtype == np.int64
