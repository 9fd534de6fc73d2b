"""A teacher with the practicals: which are there, and does every figure hold?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Desk


@pytest.mark.slow
def test_the_hour(desk: Desk) -> None:
    listed = desk.shell("udlbridge practicals")
    assert "02_losses" in listed
    assert len(listed.splitlines()) >= 14
    shown = desk.shell("udlbridge practicals run losses --backend reference --json figures.json --plot pictures")
    assert "11.45" in shown
    assert json.loads((desk.folder / "figures.json").read_text())
    assert list((desk.folder / "pictures").rglob("*.png"))
    heard = desk.script(
        "class.py", "import udlbridge\nudlbridge.practicals.run('losses', 'reference')\nprint('done')\n"
    )
    assert heard.splitlines()[-1] == "done"
    notebook = desk.shell("udlbridge reproduce --no-install --backend torch,reference --plot plots")
    assert "14.2293" in notebook
    assert len(list((desk.folder / "plots").glob("*.png"))) == 4
