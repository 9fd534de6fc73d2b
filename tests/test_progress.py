"""Whether progress is shown: truth values of any library, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import OptionError
from udlbridge.progress import is_shown, kernel_progress, progress_bar, solver_progress, spectrum_progress


@pytest.mark.parametrize("shown", [True, np.True_, np.array(True)])
def test_truth_values_of_any_library(shown: object) -> None:
    assert is_shown(shown) is True
    assert is_shown(np.logical_not(shown)) is False


def test_nothing_is_shown_where_false_is_one_of_numpy_s(capsys: pytest.CaptureFixture[str]) -> None:
    with kernel_progress(1.0, show=np.False_) as advance:
        advance(1.0, 1)
    with progress_bar("training", 0, 1, np.False_) as show:
        assert show is None
    with spectrum_progress(show=np.False_) as watch:
        assert watch is None
    with solver_progress(show=np.False_) as tell:
        tell(1, 0.5, 0.1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("untyped")
def test_words_are_refused() -> None:
    model, x = ub.Model([ub.Dense(2, 2)]), np.ones((3, 2), np.float32)
    with pytest.raises(OptionError, match=r"progress='no'.*True or False"):
        ub.ntk(model, x, progress="no", backend="reference")
    with pytest.raises(OptionError, match=r"progress='no'"):
        ub.train(model, x, np.array([0, 1, 1]), epochs=1, progress="no", backend="reference")
