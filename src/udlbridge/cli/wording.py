"""Errors in terms of the command line: the library says what to do in those of Python."""

from __future__ import annotations

import re

import click

from udlbridge.errors import UDLBridgeError, composed, plain
from udlbridge.texts import nearest

OPTIONS = {
    **{name: f"--{name}" for name in ("outputs", "output", "params", "device", "memory", "threads", "method", "dtype")},
    **{name: f"--{name}" for name in ("storage", "seed", "rank", "resume", "tolerance", "digits", "width", "epochs")},
    "backend": "--backend",
    "backends": "--backend",
    "overwrite": "--force",
    "x2": "--samples2",
    "sample_shape": "--shape",
    "dense_limit": "--dense-limit",
    "max_products": "--max-products",
    "diag_reg": "--diag-reg",
}
"""What arguments of Python are called at the command line."""

_ARGUMENT = re.compile(
    rf"\b({'|'.join(OPTIONS)})=(\"[^\"]*\"|'[^']*'|\[[^\]]*\]|\([^)]*\)|[\w*+-]+(?:\.[\w*+-]+)*)?(?![\w(=])"
)
_CALL = re.compile(r"\w\([^()]*$")
"""The end of a text whose last call of a function goes on: what comes next is an argument there."""

_TWICE = re.compile(r"(--[\w-]+) \(\1(?: [^)]*)?\)")
"""An option, and the same argument of Python, which is the same option now."""


def at_shell(error: UDLBridgeError) -> str:
    """The message of an error as a user of the command line reads it."""
    return composed(in_shell(error.given), in_shell(error.allowed), in_shell(error.shell or error.remedy))


def with_near_options(error: click.NoSuchOption) -> click.NoSuchOption:
    """The error without suggestions that share little with the option but its hyphens, as --help for --model."""
    word = error.option_name.lstrip("-")
    near = [one for one in error.possibilities or () if nearest(word, [one.lstrip("-")])]
    return click.NoSuchOption(error.option_name, error.message, near, error.ctx)


def in_shell(text: str) -> str:
    """Arguments of Python, as `outputs="trace"`, as options: `--outputs trace`; those within calls stay."""

    def option(found: re.Match[str]) -> str:
        if _CALL.search(text[: found.start()]):
            return found[0]
        return " ".join(part for part in (OPTIONS[found[1]], _value(found[2] or "")) if part)

    return _TWICE.sub(r"\1", _ARGUMENT.sub(option, plain(text)))


def _value(written: str) -> str:
    """A value as Python writes it, as it is typed in a shell."""
    if written in ("True", "None"):
        return ""
    if written[:1] in "[(":
        return ",".join(part.strip().strip("'\"") for part in written[1:-1].split(",") if part.strip())
    bare = written.strip("'\"")
    return bare if re.fullmatch(r"[\w.,:*+-]*\w[\w.,:*+-]*", bare) or not bare else written
