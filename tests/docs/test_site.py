"""The documentation as a reader sees it: built strictly, complete, without the network, and open in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import udlbridge as ub

TOP = Path(__file__).parents[2]
PAGES = TOP / "docs" / "pages"
STUB = Path(ub.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def test_the_reference_has_every_public_name() -> None:
    listed = "\n".join(page.read_text(encoding="utf-8") for page in sorted((PAGES / "api").glob("*.md")))
    missing = [
        name
        for module, name in re.findall(r"^from \.(\S*) import \w+ as (\w+)$", STUB, re.MULTILINE)
        if not re.search(rf"^::: udlbridge\.{name}\b", listed, re.MULTILINE) and module != "errors"
    ]
    assert missing == []
    assert "::: udlbridge.errors\n" in listed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    pytest.importorskip("mkdocs", reason='the extra "docs" is not installed')
    pytest.importorskip("mkdocstrings_handlers", reason='the extra "docs" is not installed')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(TOP / "docs/mkdocs.yml"), "-d", folder]
    done = subprocess.run(
        command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """Addresses that a page loads, and ids that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        settings = dict(attrs)
        self.ids.add(settings.get("id") or "")
        if tag in ("script", "img", "iframe"):
            self.addresses.append(settings.get("src") or "")
        elif tag == "link" and settings.get("rel") in ("stylesheet", "icon"):
            self.addresses.append(settings.get("href") or "")


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        foreign = [a for a in Loaded(page.read_text(encoding="utf-8")).addresses if a.startswith(("http", "//"))]
        assert foreign == [], page


@pytest.mark.slow
def test_functions_have_their_place(site: Path) -> None:
    assert {"udlbridge.ntk", "udlbridge.KernelStore.append"} <= Loaded((site / "api" / "kernels.html").read_text()).ids
    assert "udlbridge.Dense" in Loaded((site / "api" / "networks.html").read_text()).ids
    assert {"UDLBridge.ntk", "UDLBridge.epoch!"} <= Loaded((site / "julia" / "reference.html").read_text()).ids


@pytest.mark.slow
def test_notebooks_are_shown_executed_and_with_their_formulas(site: Path) -> None:
    text = (site / "examples" / "flux_kernel_notebook.html").read_text(encoding="utf-8")
    assert "14.229333" in text
    assert "<math" in text
    assert "\\theta" not in text
    assert "\\langle" not in text


@pytest.mark.slow
def test_a_browser_shows_the_first_page(site: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is here")
    picture = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    address = (site / "index.html").as_uri()
    size = ["--window-size=1200,900", f"--screenshot={picture}"]
    subprocess.run([browser, *options, *size, address], check=True, capture_output=True, timeout=120)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size > 30_000  # more than a blank page
    shown = subprocess.run(
        [browser, *options, "--dump-dom", address], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    assert "Is my port right?" in shown
