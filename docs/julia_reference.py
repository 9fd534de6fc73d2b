"""The reference of the Julia package: a page of the docstrings of its public names, read from the sources."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

PACKAGE = Path(__file__).resolve().parents[1] / "julia"
DOCUMENTED = re.compile(
    r'^"""\n(?P<text>.*?)^"""\n'
    r"(?:(?:mutable )?struct |abstract type |function )?(?P<name>[A-Za-z_]\w*!?)(?P<generic> end$)?",
    re.MULTILINE | re.DOTALL,
)
SIGNATURES = re.compile(r"\A(?:    .*\n)+")
REFERENCE = re.compile(r"\[`(?:UDLBridge\.)?(?P<name>[\w!.]+)`\]\(@ref\)")

INTRODUCTION = """\
# Julia reference

What `UDLBridge`, the package in `julia/`, shows to those who use it. Samples come last, as everywhere in Flux. The
[introduction](README.md) has an overview.
"""
GROUPS = {
    "exported": ("Exported", "`using UDLBridge` brings these."),
    "public": ("Public, not exported", "Their names are general, or others have them too: `UDLBridge.jacobian(...)`."),
    "extended": (
        "Methods that you may add",
        "For layers and operations of your own: `UDLBridge.fields(::Mine) = ...`.",
    ),
}


def public_names() -> dict[str, list[str]]:
    """Names by group: exported, public, and others to which the README tells its readers to add methods."""
    module = (PACKAGE / "src" / "UDLBridge.jl").read_text(encoding="utf-8")
    exported = re.findall(r"[\w!]+", " ".join(re.findall(r"^export (.*)$", module, re.MULTILINE)))
    declared = re.search(r"Expr\(:public,(.*?)\)\)", module, re.DOTALL)
    public = re.findall(r":([\w!]+)", declared[1] if declared else "")
    mentioned = re.findall(r"UDLBridge\.(\w+)", (PACKAGE / "README.md").read_text(encoding="utf-8"))
    extended = [name for name in dict.fromkeys(mentioned) if name not in {*exported, *public, "jl"}]
    return {"exported": exported, "public": public, "extended": extended}


def docstrings() -> dict[str, list[str]]:
    """Every docstring of several lines by the name that it stands before; that of the function before its methods'."""
    found: dict[str, list[str]] = {}
    for path in sorted((PACKAGE / "src").rglob("*.jl")):
        for match in DOCUMENTED.finditer(path.read_text(encoding="utf-8")):
            texts = found.setdefault(match["name"], [])
            texts.insert(0 if match["generic"] else len(texts), match["text"])
    return found


def page() -> str:
    """The page in Markdown. Raises `LookupError` for a public name without a docstring."""
    groups, texts = public_names(), docstrings()
    known = {name for names in groups.values() for name in names}
    if missing := sorted(known - set(texts)):
        raise LookupError(f"no docstring in julia/src for {', '.join(missing)}")
    parts = [INTRODUCTION]
    for group, names in groups.items():
        parts += ["## {}\n\n{}\n".format(*GROUPS[group])]
        for name in names:
            shown = name if group == "exported" else f"UDLBridge.{name}"
            parts += [f"### {shown} {{ #{anchor(name)} }}\n", *(_markdown(text, known) for text in texts[name])]
    return "\n".join(parts)


def anchor(name: str) -> str:
    """The id of a name on the page."""
    return f"UDLBridge.{name}"


def _markdown(text: str, known: set[str]) -> str:
    """A docstring for the page: signatures and examples as code, headings as paragraphs, references as links."""

    def linked(found: re.Match[str]) -> str:
        name = found["name"]
        return f"[`{name}`](#{anchor(name)})" if name in known else f"`{name}`"

    signatures = SIGNATURES.match(text)
    head = "" if signatures is None else f"```julia\n{dedent(signatures[0])}```\n"
    body = text[signatures.end() if signatures else 0 :].replace("\\\\", "\\")
    body = re.sub(r"^# (.*)$", r"**\1**\n", body, flags=re.MULTILINE)
    return head + REFERENCE.sub(linked, body.replace("```jldoctest", "```jlcon"))
