"""Which options each command has: one table, so that a command that lacks one of them is seen."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest

from helpers import udlbridge
from udlbridge.cli import COMMANDS, group

WANTED = {
    "reproduce": "json force no-install plot seed data",
    "check": "json force quiet device report seed data samples labels cast",
    "kernel": "json force quiet device report seed data samples labels cast",
    "store info": "json force",
    "store verify": "json force quiet device",
    "store repair": "json force quiet device",
    "store upload": "json force",
    "store append": "json force quiet device samples labels cast",
    "align": "json force quiet device report plot seed data samples labels cast",
    "convert": "json force",
    "spectrum": "json force quiet device report seed data samples labels cast",
    "predict": "json force quiet device report seed data samples labels cast",
    "practicals": "json force",
    "practicals run": "json force report plot data",
    "practicals table": "json force data",
    "doctor": "json force",
    "julia": "",
    "julia install": "json force",
    "julia status": "json force",
    "julia stop": "json force",
    "julia use": "json force",
    "julia forget": "json force",
    "store": "",
}
"""Of every command those of `NAMES` that apply to it: what shows a progress bar has --quiet, what is asked where torch
computes --device, what may set Julia up --no-install."""

NAMES = {
    "json", "force", "no-install", "quiet", "device", "report", "plot", "seed", "data", "samples", "labels", "cast",
}  # fmt: skip


def _commands(parent: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    names = COMMANDS if not words else getattr(parent, "commands", {})
    for name in names:
        context = click.Context(parent)
        found = parent.get_command(context, name)  # type: ignore[attr-defined]
        yield " ".join((*words, name)), found
        if isinstance(found, click.Group):
            yield from _commands(found, (*words, name))


def _options(command: click.Command) -> set[str]:
    return {option.removeprefix("--") for param in command.params for option in param.opts}


def test_every_command_has_the_options_that_apply_to_it() -> None:
    found = {name: _options(command) & NAMES for name, command in _commands(group)}
    assert found == {name: set(options.split()) for name, options in WANTED.items()}


ON_THE_CPU = {
    "reproduce": "compares engines on the same machine with what was recorded there",
    "practicals run": "figures are those of the CPU",
    "practicals table": "figures are those of the CPU",
}
"""Commands that compute with engines and have no --device, and why."""

WRITTEN = {"json", "report", "plot", "out"}
"""Options that name what is written anew."""


def test_what_follows_from_other_options() -> None:
    """A new command that computes has --device, one that writes has --force, and one that may take long, --quiet."""
    for name, command in _commands(group):
        options = _options(command)
        assert ("device" in options) == ("backend" in options and name not in ON_THE_CPU), name
        assert "force" in options or not options & WRITTEN, name
        assert "quiet" in options or not options & {"memory", "device"}, name
        assert "json" in options or not options & {"report", "backend", "force"}, name
        assert {"seed", "samples"} <= options or "model" not in options or name.startswith("store "), name


@pytest.mark.usefixtures("julia_nowhere")
def test_the_json_of_lists_and_of_julia() -> None:
    titles = json.loads(udlbridge("practicals", "--json").stdout)
    assert "02_losses" in titles
    done = udlbridge("julia", "status", "--json")
    status = json.loads(done.stdout)
    assert (done.returncode, status["usable"]) == (1, False)
    assert "/nowhere/julia" in done.stderr
    done = udlbridge("practicals", "--json", "x.json", "run", "02")
    assert (done.returncode, "belongs after `run`" in done.stderr) == (2, True)
