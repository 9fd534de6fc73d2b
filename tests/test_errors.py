"""Errors as they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

import udlbridge as ub
from udlbridge import errors


@pytest.mark.parametrize("words", ["[Errno 2] ", "[WinError 5] ", "[Errno -3] "])
def test_no_message_has_the_number_of_an_error_of_the_operating_system(words: str) -> None:
    error = errors.DataError(f"x.csv cannot be read ({words}No such file or directory: 'x.csv')")
    assert str(error) == "x.csv cannot be read (No such file or directory: 'x.csv')."
    assert "[" not in error.given


def test_a_file_that_is_not_there_is_said_without_a_number(tmp_path: Path) -> None:
    for read in (ub.Model.load, ub.KernelStore, ub.read_weights):
        with pytest.raises(errors.UDLBridgeError) as raised:
            read(tmp_path / "none.safetensors")
        assert "Errno" not in str(raised.value)
