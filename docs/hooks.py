"""Pages that stand elsewhere or are made of docstrings of Julia; formulas of notebooks, without the network."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import julia_reference
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP = Path(__file__).resolve().parents[1]
PATTERNS = ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "julia/README.md", "examples/**/*"]
SUFFIXES = {"", ".md", ".ipynb", ".py", ".jl", ".png"}
CODE_OR_FORMULA = re.compile(
    r"<(pre|code|script|style)\b.*?</\1>|\$\$(?P<block>.+?)\$\$|\$(?P<line>[^$\n]+)\$", re.DOTALL
)


@event_priority(100)  # before the plugin that looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them under the path that they have in the repository, so that links between them hold."""
    for pattern in PATTERNS:
        for path in sorted(TOP.glob(pattern)):
            if path.is_file() and path.suffix in SUFFIXES:
                place = path.relative_to(TOP).as_posix()
                files.append(File(place, str(TOP), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, "julia/reference.md", content=julia_reference.page()))
    return files


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Formulas of notebooks as MathML, which browsers show without a script from elsewhere."""
    return CODE_OR_FORMULA.sub(_formula, content) if page.file.src_uri.endswith(".ipynb") else content


def _formula(found: re.Match[str]) -> str:
    block, line = found["block"], found["line"]
    if block is None and line is None:
        return found[0]
    # The converter leaves a delimiter behind \Big as it is written.
    latex = re.sub(r"\\[bB]igg?[lr]?(?![a-zA-Z])", "", html.unescape(block or line))
    return str(convert(latex.strip(), display="block" if block else "inline"))
