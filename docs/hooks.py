"""Pages that stand elsewhere in the repository, with what they link to: examples, the Julia package, changes."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

TOP = Path(__file__).resolve().parents[1]
PATTERNS = ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "julia/README.md", "examples/**/*"]
SUFFIXES = {"", ".md", ".ipynb", ".py", ".jl", ".png"}


@event_priority(100)  # before the plugin that looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them under the path that they have in the repository, so that links between them hold."""
    for pattern in PATTERNS:
        for path in sorted(TOP.glob(pattern)):
            if path.is_file() and path.suffix in SUFFIXES:
                files.append(
                    File(path.relative_to(TOP).as_posix(), str(TOP), config.site_dir, config.use_directory_urls)
                )
    return files
