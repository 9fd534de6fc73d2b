"""The command line: `udlbridge`, also `python -m udlbridge`.

A command is a module of this package with a click command called `command`; it imports what is heavy inside it, so that
`--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module, metadata

import click

COMMANDS: dict[str, str] = {
    "reproduce": "udlbridge.cli.reproduce",
    "check": "udlbridge.cli.check",
    "kernel": "udlbridge.cli.kernel",
    "store": "udlbridge.cli.store",
    "align": "udlbridge.cli.align",
    "convert": "udlbridge.cli.convert",
    "spectrum": "udlbridge.cli.spectrum",
    "predict": "udlbridge.cli.predict",
    "practicals": "udlbridge.cli.practicals",
    "doctor": "udlbridge.cli.doctor",
    "julia": "udlbridge.cli.julia",
}
"""Every command, in the order of the help page, and its module."""

SPIN_COUNT = "10000"
"""How often a thread of torch looks whether the others are done before it sleeps. By default it looks for milliseconds:
where other programs compute too, it keeps the one it waits for from the processor, and a kernel takes ten times as long
as with one thread. This many cost nothing where the machine is free."""

LINGER_SECONDS = "600"
"""How long Julia's process waits for a next command, where the user says nothing else."""

EXIT_DISAGREE = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if cmd_name not in COMMANDS:
            from udlbridge.texts import nearest

            ctx.fail(f"there is no command {cmd_name!r}; there are {', '.join(COMMANDS)}{nearest(cmd_name, COMMANDS)}")
        found: click.Command = import_module(COMMANDS[cmd_name]).command
        return found


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"udlbridge {metadata.version('udlbridge')}")
        ctx.exit()


COMPLETION = """\b
Completion of commands, options, engines, networks and practicals:
  bash  eval "$(_UDLBRIDGE_COMPLETE=bash_source udlbridge)"       in ~/.bashrc
  zsh   eval "$(_UDLBRIDGE_COMPLETE=zsh_source udlbridge)"        in ~/.zshrc
  fish  _UDLBRIDGE_COMPLETE=fish_source udlbridge | source        in ~/.config/fish/config.fish
"""


@click.group(
    cls=LazyGroup, epilog=COMPLETION, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
def group() -> None:
    """Gradient kernels of neural networks on Flux/Zygote, on PyTorch and by hand, shown to be equal."""


def main() -> None:
    """Run the command line; errors of this package are printed without a traceback and exit with 2."""
    from udlbridge.errors import UDLBridgeError, plain

    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is loaded
    os.environ.setdefault("UDLBRIDGE_JULIA_LINGER", LINGER_SECONDS)
    try:
        code = group(standalone_mode=False, prog_name="udlbridge")
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            from udlbridge.cli.wording import with_near_options

            error = with_near_options(error)
        error.show()
        sys.exit(error.exit_code)
    except UDLBridgeError as error:
        from udlbridge.cli.wording import at_shell

        click.echo(f"udlbridge: {at_shell(error)}", err=True)
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort) as error:
        notes = getattr(error.__cause__ or error, "__notes__", [])  # click hands an interruption on as the cause
        click.echo("; ".join(["udlbridge: interrupted", *notes]), err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has left; point stdout elsewhere so that the interpreter's last flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except OSError as error:
        # An error of the operating system that nobody foresaw is not a fault of the program: one line is enough.
        click.echo(f"udlbridge: {plain(str(error))}", err=True)
        sys.exit(EXIT_ERROR)
    sys.exit(code if isinstance(code, int) else 0)
