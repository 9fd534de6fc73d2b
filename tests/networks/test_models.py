"""The networks that have names."""

from __future__ import annotations

import pytest

import udlbridge as ub


def test_a_network_that_is_not_there_is_told_from_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no network called 'lenet'; there are .*, perhaps 'lenet5'"):
        _ = ub.models.lenet
    assert not hasattr(ub.models, "__wrapped__")
