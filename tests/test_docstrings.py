"""Docstrings say what a function raises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import udlbridge

SOURCES = Path(udlbridge.__file__).parent
BUGS = {"AssertionError", "NotImplementedError"}
"""What says that the code itself is wrong, which no caller has to know."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def own_statements(function: Function) -> Iterator[ast.AST]:
    """Everything in a function but what stands in functions and classes inside it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def raises(function: Function) -> set[str]:
    """Names of the errors, or of the functions that make them, in its own `raise` statements."""
    raised = [node.exc for node in own_statements(function) if isinstance(node, ast.Raise)]
    return {ast.unparse(exc.func) for exc in raised if isinstance(exc, ast.Call)} - BUGS


def public_functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
    """Functions and methods whose names, and those of their classes, have no underscore in front."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if isinstance(node, ast.ClassDef):
                yield from public_functions(node.body, f"{prefix}{node.name}.")
            else:
                yield f"{prefix}{node.name}", node


def test_public_functions_say_what_they_raise() -> None:
    silent = []
    for path in sorted(SOURCES.rglob("*.py")):
        room = path.relative_to(SOURCES).as_posix()
        for name, function in public_functions(ast.parse(path.read_text()).body, f"{room}: "):
            found = raises(function)
            # The docstring of a command is its help.
            command = any("command(" in ast.unparse(one) for one in function.decorator_list)
            if found and not command and "Raise" not in (ast.get_docstring(function) or ""):
                silent.append(f"{name} raises {', '.join(sorted(found))}")
    assert not silent, "\n".join(silent)
