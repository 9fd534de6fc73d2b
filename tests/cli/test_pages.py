"""`--report`: one page that needs nothing else, with whatever users name escaped."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge

VOID = {"meta", "img", "link", "br"}


class _Checked(HTMLParser):
    """A parser that fails where elements are not closed in order, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of samples whose name is markup."""
    monkeypatch.chdir(tmp_path)
    ub.Model([ub.Dense(4, 6, "tanh"), ub.Dense(6, 3)], dtype="float64").save("m.safetensors")
    name = "<img src=x onerror=alert(1)>.npy"
    np.save(name, np.random.default_rng(0).normal(size=(9, 4)))
    np.save("y.npy", np.arange(9) % 3)
    return name


COMMANDS = {
    "check": ("--backend", "torch,reference"),
    "kernel": ("--backend", "reference", "--out", "k.npy"),
    "kernel store": ("--backend", "reference", "--out", "k.zarr"),
    "kernel plan": ("--backend", "reference", "--plan"),
    "spectrum": ("--backend", "reference"),
    "predict": ("--backend", "reference", "--labels", "y.npy", "--quiet"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_is_whole_and_needs_nothing_else(name: str, named: str) -> None:
    words = (name.split()[0], "--model", "m.safetensors", "--samples", named, *COMMANDS[name])
    done = udlbridge(*words, "--report", "page.html")
    assert done.returncode == 0, done.stderr
    text = Path("page.html").read_text()
    page = _Checked()
    page.feed(text)
    page.close()
    assert page.open == []
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert ("img" in page.seen) == (name != "kernel plan")
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text).replace("<!--", "")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    for words_ in ("Versions", "Machine", "Options", "prefers-color-scheme", ub.__version__):
        assert words_ in text


def test_options_are_shown_as_they_are_typed(named: str) -> None:
    words = ("kernel", "--model", "m.safetensors", "--samples", named, "--backend", "reference", "--params", "*.bias")
    done = udlbridge(*words, "--params", "readout", "--quiet", "--out", "k.npy", "--report", "page.html")
    assert done.returncode == 0, done.stderr
    table = Path("page.html").read_text().split("<h2>Options</h2>")[1].split("</table>")[0]
    cells = re.findall(r'<td data-value="[^"]*">([^<]*)</td>', table)
    shown = dict(zip(cells[::2], cells[1::2], strict=True))
    wanted = {
        "--model": "m.safetensors", "--params": "*.bias readout", "--quiet": "yes", "--out": "k.npy",
        "--report": "page.html", "--memory": "2GB",
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted
    assert all(name.startswith("--") for name in shown)


def test_a_page_is_not_overwritten(named: str) -> None:
    Path("page.html").write_text("mine")
    words = ("check", "--model", "m.safetensors", "--samples", named, "--backend", "torch,reference")
    assert udlbridge(*words, "--report", "page.html").returncode == 2
    assert Path("page.html").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here")
def test_a_browser_shows_it_and_sorts_it(named: str) -> None:
    words = ("check", "--model", "m.safetensors", "--samples", named, "--backend", "torch,reference")
    assert udlbridge(*words, "--report", "page.html").returncode == 0
    page = Path("page.html")
    click = "<script>document.querySelectorAll('th button')[3].click()</script></body>"
    page.write_text(page.read_text().replace("</body>", click))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    first = done.stdout.split("<tbody>")[1].split("</tbody>")[0]
    cells = [re.findall(r'data-value="([^"]*)"', row)[3] for row in first.split("</tr>")[:-1]]
    assert [float(cell) for cell in cells] == sorted(float(cell) for cell in cells)
    assert 'aria-sort="ascending"' in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here")
def test_long_lines_wrap(named: str) -> None:
    """In a narrow window too, nothing but a wide table is wider than the page, and that scrolls by itself."""
    words = ("kernel", "--model", "m.safetensors", "--samples", named, "--backend", "reference")
    assert udlbridge(*words, "--out", "k" * 200 + ".npy", "--report", "page.html").returncode == 0
    measure = "<script>document.title = [document.documentElement, document.querySelector('pre')]"
    measure += ".map(part => `${part.scrollWidth} in ${part.clientWidth}`).join('; ')</script></body>"
    page = Path("page.html")
    page.write_text(page.read_text().replace("</body>", measure))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,800", "--dump-dom"]
    done = subprocess.run([*command, page.resolve().as_uri()], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>(\d+) in (\d+); (\d+) in (\d+)</title>", done.stdout)
    assert found is not None, done.stdout[:500]
    whole, window, text, box = map(int, found.groups())
    assert (whole, text) == (window, box)
    assert 100 < box < window <= 500
