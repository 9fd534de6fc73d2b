"""Docstrings here say in prose what is raised, for which Google's style has no place: it becomes a paragraph."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

RAISES = re.compile(r"^Raises:\n(?P<block>(?:[ \t]+\S.*(?:\n|\Z))+)", re.MULTILINE)
ENTRY = re.compile(r"\w+(?:, \w+)*: ")


class ProseOfRaises(griffe.Extension):
    """Turns `Raises:` into a paragraph, unless it is a list of exceptions."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that has one."""
        if obj.docstring is not None:
            obj.docstring.value = RAISES.sub(_paragraph, obj.docstring.value)


def _paragraph(found: re.Match[str]) -> str:
    lines = dedent(found["block"]).splitlines()
    listed = all(ENTRY.match(line) for line in lines if not line.startswith(" "))
    return found[0] if listed else f"**Raises:** {' '.join(map(str.strip, lines))}\n"
