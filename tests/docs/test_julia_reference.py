"""The page of Julia's reference: complete, and what the docstrings say."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parents[2]
SOURCES = {path: path.read_text(encoding="utf-8") for path in (TOP / "julia" / "src").rglob("*.jl")}


@pytest.fixture
def reference() -> ModuleType:
    """`docs/julia_reference.py`, which the build of the documentation imports."""
    spec = spec_from_file_location("julia_reference", TOP / "docs" / "julia_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_that_users_may_call_is_on_the_page(reference: ModuleType) -> None:
    module = SOURCES[TOP / "julia" / "src" / "UDLBridge.jl"]
    exported = [name for line in re.findall(r"^export (.+)$", module, re.MULTILINE) for name in line.split(", ")]
    public = re.findall(r":([A-Za-z]\w*)\b", module[module.index("eval(Expr(:public") :].partition("))")[0])[1:]
    assert {"ntk", "epoch!", "Sobolev"} <= set(exported)
    assert {"jacobian", "AtStart", "Graph"} <= set(public)
    found = re.findall(r"^### (?:UDLBridge\.)?(\S+) \{ #UDLBridge\.\1 \}$", reference.page(), re.MULTILINE)
    assert len(set(found)) == len(found)
    assert {*exported, *public, "fields", "observed", "build_layer", "operation"} == set(found)


def test_the_page_says_what_the_docstrings_say(reference: ModuleType) -> None:
    page = reference.page()
    for text in (
        "### ntk { #UDLBridge.ntk }\n\n```julia\nntk(model, X, X2 = nothing; outputs = :trace, method = :structured",
        "- `X` (D..., n) and `X2` (D..., m): samples last.",
        "[`NumericalError`](#UDLBridge.NumericalError) for a kernel with entries that are not finite.",
        "```jlcon\njulia> chain = Chain(Dense([1.0 2.0; 3.0 4.0]",
        "**Errors**\n",
    ):
        assert text in page
    assert "(@ref)" not in page
    assert "jldoctest" not in page
    assert page.count("```") % 2 == 0
    links = set(re.findall(r"\(#(UDLBridge\.[\w!]+)\)", page))
    assert links <= set(re.findall(r"\{ #(UDLBridge\.[\w!]+) \}", page))


def test_a_public_name_without_a_docstring_is_told(reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "public_names", lambda: {"exported": ["ntk", "undocumented"]})
    with pytest.raises(LookupError, match="undocumented"):
        reference.page()
