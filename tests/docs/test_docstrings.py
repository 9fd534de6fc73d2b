"""Every public name has an example in its docstring, and each gives what it says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub

STUB = Path(ub.__file__).with_suffix(".pyi")
NAMES: list[str] = re.findall(r" as (\w+)$", STUB.read_text(encoding="utf-8"), re.MULTILINE)
SLOW = {"study_alignment", "AlignmentStudy", "study_linearization", "LinearizationStudy", "converges", "Convergence"}


def test_every_public_name_has_an_example() -> None:
    assert len(NAMES) > 90
    shown = {name: getattr(ub, name).__doc__ or "" for name in NAMES}
    assert [name for name, text in shown.items() if ">>> " not in text] == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES]
)
def test_an_example_gives_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untyped: None
) -> None:
    """With `np` and `ub` alone, as users of the default engine have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UDLBRIDGE_BACKEND", raising=False)
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(tmp_path / "none"))
    text = getattr(ub, name).__doc__ or ""
    test = doctest.DocTestParser().get_doctest(text, {"np": np, "ub": ub}, name, None, None)
    heard: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=heard.append)
    assert result.failed == 0, "".join(heard)
