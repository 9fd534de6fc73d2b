"""What the pages and the README show is run, block by block, and prints what they say that it prints.

Blocks of a page run in order, in one folder and with one set of names. A block with a title is a file of that name. A
block `text` is what the block before it printed: words must be equal and numbers close, since other machines round
otherwise, and a line `...` stands for any lines. Of a block `sh`, lines that start with `udlbridge` are run. A comment
`<!-- needs julia -->` or `<!-- not run: reason -->` before a block leaves it out, where Julia is absent or always.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from udlbridge import backends
from udlbridge.cli import group

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs" / "pages").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (?P<remark>[^\n]*) -->\n)?```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
ROUNDING = 1e-5
"""Below it numbers are rounding errors, which differ between machines."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    title: str | None
    remark: str
    line: int

    @property
    def left_out(self) -> bool:
        """Whether it is not run here."""
        absent = self.remark.startswith("needs julia") and "julia" not in backends.usable()
        return absent or self.remark.startswith("not run")


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    source = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(source):
        line = source.count("\n", 0, found.start("text"))
        yield Block(found["language"], found["text"], found["title"], found["remark"] or "", line)


def alike(shown: str, printed: str) -> bool:
    """Whether a line says the same: words equal, numbers within 1 %, or all of the size of rounding."""
    if re.sub(r"\s+", " ", NUMBER.sub("#", shown)).strip() != re.sub(r"\s+", " ", NUMBER.sub("#", printed)).strip():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(
        abs(float(a) - float(b)) <= 0.01 * abs(float(b)) or max(abs(float(a)), abs(float(b))) < ROUNDING
        for a, b in pairs
    )


def says(shown: list[str], printed: list[str]) -> bool:
    """Whether lines that a page shows are those that were printed, `...` standing for any."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(says(shown[1:], printed[k:]) for k in range(len(printed) + 1))
    return bool(printed) and alike(shown[0], printed[0]) and says(shown[1:], printed[1:])


def run_commands(text: str) -> str:
    """What the lines that start with `udlbridge` print."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("udlbridge "):
            result = CliRunner().invoke(group, shlex.split(line, comments=True)[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
            printed += result.stdout
    return printed


def lines(text: str) -> list[str]:
    """Without trailing blanks and empty lines at both ends."""
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.mark.costly("first-hour")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untyped: None) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    printed: str | None = None
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.left_out:
            printed = None
        elif block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
            printed = None
        elif block.language == "python":
            heard = io.StringIO()
            code = compile("\n" * block.line + block.text, str(page), "exec")
            with contextlib.redirect_stdout(heard):
                exec(code, names)
            printed = heard.getvalue()
        elif block.language == "sh":
            printed = run_commands(block.text)
        elif block.language == "text" and printed is not None:
            shown, found = lines(block.text), lines(printed)
            assert says(shown, found), f"{where} shows\n" + "\n".join(shown) + "\nbut it prints\n" + "\n".join(found)


def test_a_page_that_does_not_hold(tmp_path: Path) -> None:
    assert says(["a 1.000 of 3", "..."], ["a 1.001 of 3", "b", "c"])
    assert says(["error 2.0e-07"], ["error 1.1e-08"])
    assert not says(["a 1.0"], ["a 1.2"])
    assert not says(["a 1.0"], ["b 1.0"])
    assert not says(["a"], ["a", "b"])
    page = tmp_path / "page.md"
    page.write_text('x\n<!-- not run: no -->\n```sh\nls\n```\n\n```python title="n.py"\na = 1\n```\n', encoding="utf-8")
    first, second = blocks(page)
    assert (first.language, first.text, first.remark, first.left_out) == ("sh", "ls\n", "not run: no", True)
    assert (second.title, second.text, second.line) == ("n.py", "a = 1\n", 7)
