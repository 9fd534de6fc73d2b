"""What several commands share: choosing engines and outputs, reading arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from udlbridge.cli.targets import UserPath

if TYPE_CHECKING:
    from udlbridge.words import EngineName


Command = Callable[..., Any]


data_option = click.option(
    "--data",
    "folder",
    type=UserPath(path_type=Path),
    metavar="FOLDER",
    help="Folder with the four MNIST files. [UDLBRIDGE_DATA]",
)


def number_option(name: str, least: int, default: int | None, text: str) -> Callable[[Command], Command]:
    """An option that is a whole number of at least `least`."""
    return click.option(
        name,
        type=click.IntRange(min=least),
        default=default,
        show_default=default is not None,
        metavar="NUMBER",
        help=text,
    )


def outputs_option(choices: str) -> Callable[[Command], Command]:
    """--outputs, with what a command takes, in words."""
    return click.option("--outputs", default="trace", show_default=True, metavar="OUTPUTS", help=choices)


every_outputs_option = outputs_option("An output from 0 on, some as 0,2, or trace, mean, sum, diagonal, full.")
one_outputs_option = outputs_option("An output from 0 on, or trace, mean, sum.")

params_option = click.option(
    "--params",
    multiple=True,
    metavar="PATTERN",
    help="Sum over these parameters alone: names, *.bias, readout, hidden.",
)


device_option = click.option(
    "--device",
    default=None,
    metavar="NAME",
    help="Where torch computes: cpu, cuda, mps.  [default: where the module is, or cpu]",
)


def completed_engines(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """Names of engines, after those that stand there already."""
    from udlbridge import backends

    before, comma, last = begun.rpartition(",")
    return [before + comma + name for name in (*backends.engines(), "all") if name.startswith(last)]


backends_option = click.option(
    "--backend",
    default="all",
    show_default=True,
    metavar="NAMES",
    shell_complete=completed_engines,
    help="torch, julia, reference, several with commas, or all that run here.",
)
no_install_option = click.option("--no-install", is_flag=True, help="Do not set Julia up where it is missing.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress bar.")


def _single(_context: click.Context, _option: click.Parameter, choice: str | None) -> str | None:
    """Say what does take several engines, where one is asked for."""
    if choice is not None and (choice == "all" or "," in choice):
        from udlbridge import backends
        from udlbridge.errors import OptionError

        raise OptionError(
            f"--backend {choice} for a command that computes once",
            allowed=f"one of {', '.join(backends.engines())}",
            remedy="choose one; `udlbridge check` compares several",
        )
    return choice


def backend_option(default: str = "torch where it is installed") -> Callable[[Command], Command]:
    """--backend, of commands that compute with one engine."""
    return click.option(
        "--backend",
        default=None,
        metavar="NAME",
        callback=_single,
        shell_complete=completed_engines,
        help=f"torch, julia or reference. [UDLBRIDGE_BACKEND]  [default: {default}]",
    )


@contextmanager
def resumable(words: str) -> Iterator[None]:
    """Say, where the block is interrupted, how to go on."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(words)
        raise


def typed(name: str) -> bool:
    """Whether the parameter `name` of the command that runs was typed, and is not as it is by default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def check_used(name: str, used: bool, words: str) -> None:
    """Refuse an option that was typed and would change nothing, which its user might not notice.

    Args:
        name: of its parameter.
        used: whether something is made with it here.
        words: what it is for, and what there is in the place of that.

    Raises:
        UsageError: it was typed, and is not used.
    """
    if not used and typed(name):
        options = {option.name: option.opts[0] for option in click.get_current_context().command.params}
        raise click.UsageError(f"{options[name]} {words}: leave it out")


def selection(params: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """The patterns of --params as the library takes them."""
    return params or None


def engines(choice: str, *, install: bool = False) -> tuple[list[EngineName], dict[str, str]]:
    """The backends that "all", or a comma-separated list, means here; and those left out of "all", with the reason.

    Julia is set up through juliapkg if it is missing and `install` allows it. Where that fails, the others of "all" go
    on without it.

    Raises:
        UnknownBackend: there is no engine of one of the names.
        BackendUnavailable: an engine in the list cannot run here.
    """
    from udlbridge import backends
    from udlbridge.errors import BackendUnavailable

    if choice != "all":
        names = backends.selected(choice)
        for name in names:
            backends.get(name, install=install)
        return names, {}
    usable, skipped = [], {}
    for name in backends.engines():
        try:
            backends.get(name, install=install)
            usable.append(name)
        except BackendUnavailable as error:
            skipped[name] = str(error)
    return usable, skipped
