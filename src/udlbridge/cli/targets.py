"""Where results go: the options that name files, checked before anything is computed, and the writing of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FILES = "udlbridge.files"
"""Where the context of a command keeps the files that its options name so far: path, option, whether it is written."""


def name_file(context: click.Context | None, name: str, path: Path, *, written: bool) -> None:
    """Note that the option or argument `name` reads or writes this file or folder.

    Raises:
        OptionError: another one writes it, or reads what would be written: one of the two would be lost.
    """
    if context is None or (path.exists() and not (path.is_file() or path.is_dir())):
        return  # a pipe or a device loses nothing
    from udlbridge.errors import OptionError

    real = Path(os.path.realpath(path))
    files: list[tuple[Path, str, bool]] = context.meta.setdefault(FILES, [])
    for other, its, also in files:
        if its == name or not (written or also) or not _collide(real, other):
            continue
        if written and also:
            said, allowed = f"{its} and {name} both write {path}", "a file of its own for each result"
        else:
            reader, writer = (its, name) if written else (name, its)
            said, allowed = f"{writer} would overwrite what {reader} reads: {path}", "another name for what is written"
        raise OptionError(said, allowed=allowed, remedy="name another file")
    files.append((real, name, written))


def _collide(one: Path, other: Path) -> bool:
    """Whether two paths are one file, or one is inside of a store that the other is."""
    if one == other or (one.exists() and other.exists() and one.samefile(other)):
        return True
    return any(outer.suffix == ".zarr" and outer in inner.parents for outer, inner in ((one, other), (other, one)))


class UserPath(click.Path):
    """A path as users type it: `~` is their home, also where the shell leaves it as it is (`--out=~/K.zarr`).

    No option may write the file of another: those that write say so by `written`.
    """

    def __init__(self, *args: Any, written: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.written = written

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, expanded; a name that the system does not take is a usage error."""
        if "://" in os.fspath(value):
            self.fail(f"{value} is a URL, and this needs a path; `udlbridge store upload` copies a store", param, ctx)
        try:
            found = super().convert(os.path.expanduser(value), param, ctx)
            os.path.lexists(found)
            Path(os.fsdecode(found)).exists()
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            self.fail(f"{os.fspath(value)[:40]!r}... cannot be a path: {words}", param, ctx)
        if param is not None and not (self.allow_dash and os.fspath(value) == "-"):
            name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
            name_file(ctx, name, Path(os.fsdecode(found)), written=self.written)
        return found


OF_ONE_PROCESS = ("memory://",)
"""How URLs begin whose stores are gone with the process that made them: no command leaves or finds anything there."""


def check_lasting(url: str) -> None:
    """Refuse the URL of a store that would be gone when the command has ended.

    Raises:
        OptionError: it is one.
    """
    if url.startswith(OF_ONE_PROCESS):
        from udlbridge.errors import OptionError

        raise OptionError(
            f"{url} is in the memory of this command, and gone when it ends",
            allowed="a path, or a URL as s3://bucket/K.zarr",
            remedy="name one of these; memory:// is for trying things out in one program of Python",
        )


class StorePath(UserPath):
    """Where a store is or is to be: a path, or a URL as s3://bucket/K.zarr."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the URL."""
        if "://" not in os.fspath(value):
            return super().convert(value, param, ctx)
        from udlbridge.store.files import located

        check_lasting(os.fspath(value))
        return located(value)


FORCE = "udlbridge.force"
"""Where the context of a command keeps whether --force was given."""


def _remember(context: click.Context, _option: click.Parameter, value: bool) -> None:
    context.meta[FORCE] = value


force_option = click.option(
    "--force",
    is_flag=True,
    is_eager=True,  # the others look it up
    expose_value=False,
    callback=_remember,
    help="Overwrite files that exist.",
)


def check_new(path: Path, name: str, context: click.Context | None = None) -> None:
    """Find out before a long computation whether a file can be written; `name` is that of its option.

    Raises:
        OptionError: it cannot, or exists and --force was not given.
    """
    from udlbridge.atomic import check_target
    from udlbridge.errors import OptionError

    words = f"{name} {path}".strip()
    check_target(path, OptionError, words)
    # A pipe or a device is written to, and loses nothing.
    if path.is_file() and not (context or click.get_current_context()).meta.get(FORCE):
        raise OptionError(f"{words} exists", allowed="a new file", remedy="add --force to overwrite it")


def forced() -> bool:
    """Whether the command that runs was given --force."""
    return bool(click.get_current_context().meta.get(FORCE))


def new_file(context: click.Context, option: click.Parameter, target: Path | None) -> Path | None:
    """Callback of the options that name a file to write."""
    if target is not None and str(target) != "-":
        check_new(target, option.opts[0], context)
    return target


def old_or_new_file(_context: click.Context, option: click.Parameter, target: Path | None) -> Path | None:
    """Callback of the options that name a file to go on with, or to begin; it is written in any case."""
    if target is not None:
        from udlbridge.atomic import check_target
        from udlbridge.errors import OptionError

        check_target(target, OptionError, f"{option.opts[0]} {target}")
    return target


def _new_plots(_context: click.Context, option: click.Parameter, target: Path | None) -> Path | None:
    """Find out before a long computation whether its plots can be written: the folder is there, or can be made."""
    if target is not None:
        from udlbridge.errors import OptionError

        nearest = next(path for path in (target, *target.absolute().parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise OptionError(
                f"{option.opts[0]} {target} cannot be written: {nearest} is "
                + ("protected" if nearest.is_dir() else "a file, not a folder"),
                allowed="a folder; one that is not there is made",
                remedy="name another",
            )
    return target


def check_plots(folder: Path | None, names: Iterable[str]) -> None:
    """Find out before a long computation whether any of its pictures would overwrite a file.

    Raises:
        OptionError: one would, and --force was not given.
    """
    for name in names if folder is not None else ():
        path = Path(folder or "", name)
        check_new(path, "--plot")
        name_file(click.get_current_context(), "--plot", path, written=True)


json_option = click.option(
    "--json",
    "json_file",
    type=UserPath(path_type=Path, allow_dash=True, written=True),
    is_flag=False,
    flag_value="-",
    metavar="FILE",
    callback=new_file,
    help="Write the result as JSON; - for stdout.",
)
plot_option = click.option(
    "--plot",
    "plots",
    type=UserPath(path_type=Path),
    metavar="FOLDER",
    callback=_new_plots,
    help="Folder for PNG pictures.",
)


def write_json(result: dict[str, Any], target: Path) -> None:
    """Write `result` to a file, or to standard output for "-"; NaN and infinity, which JSON does not know, as null.

    Raises:
        OptionError: the file cannot be written.
    """
    from udlbridge.atomic import writing
    from udlbridge.errors import OptionError
    from udlbridge.reports import json_ready

    text = json.dumps(json_ready(result), indent=2, allow_nan=False)
    if str(target) == "-":
        click.echo(text)
        return
    with writing(target, OptionError) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def report(text: str, json_file: Path | None) -> None:
    """Print the text for people, unless standard output is for the JSON."""
    click.echo(text, err=json_file is not None and str(json_file) == "-")


def save_figure(figure: Figure, path: Path, json_file: Path | None) -> None:
    """Write a figure as PNG into a folder, which is made if it is not there, and say so.

    Raises:
        OptionError: the file cannot be written.
    """
    from udlbridge.atomic import writing
    from udlbridge.errors import OptionError

    with writing(path, OptionError) as partial:
        figure.savefig(partial, format="png", dpi="figure")
    report(f"wrote {path}", json_file)
