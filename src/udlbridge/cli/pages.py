"""`--report`: a result as one page of HTML that needs nothing else, neither other files nor a network."""

from __future__ import annotations

import base64
import datetime
import io
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.targets import UserPath, new_file, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _new_page(context: click.Context, option: click.Parameter, target: Path | None) -> Path | None:
    """Callback of --report: a page has the ending by which a browser knows it."""
    file = target is not None and (target.is_file() or not target.exists())  # pipes and devices have no ending
    if target is not None and file and target.suffix.lower() not in (".html", ".htm"):
        from udlbridge.errors import OptionError

        raise OptionError(
            f"--report {target} ends in {target.suffix or 'nothing'}",
            allowed=".html: it is a page, and a file",
            remedy="name it so; --json - is for standard output",
        )
    return new_file(context, option, target)


report_option = click.option(
    "--report",
    "html",
    type=UserPath(path_type=Path, written=True),
    metavar="FILE.html",
    callback=_new_page,
    help="Write the result as a page of HTML with pictures, versions and options, that needs no other file.",
)

Rows = Sequence[Mapping[str, Any]]

PACKAGES = ("udlbridge", "numpy", "scipy", "torch", "juliacall", "matplotlib")


def write_page(
    target: Path, text: str, tables: Mapping[str, Rows], pictures: Mapping[str, Figure], json_file: Path | None = None
) -> None:
    """Write the page of the command that runs: its text, tables that sort, pictures, options, versions, machine.

    Whatever is in the text, the tables and the options stands there as text: it is escaped.

    Raises:
        OptionError: the file cannot be written.
    """
    from jinja2 import Environment, select_autoescape

    from udlbridge.atomic import writing
    from udlbridge.errors import OptionError

    context = click.get_current_context()
    environment = Environment(autoescape=select_autoescape(default=True, default_for_string=True))
    template = environment.from_string(resources.files("udlbridge.cli").joinpath("page.html").read_text("utf-8"))
    every = {**tables, "Options": _options(context), "Versions": _versions(), "Machine": _machine()}
    page = template.render(
        title=context.command_path,
        when=datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        text=text,
        tables={name: _table(rows) for name, rows in every.items() if rows},
        pictures={name: _svg(figure) for name, figure in pictures.items()},
    )
    with writing(target, OptionError) as partial:
        partial.write_text(page, encoding="utf-8")
    report(f"wrote {target}", json_file)


def _table(rows: Rows) -> dict[str, Any]:
    from udlbridge.displays import shown

    heads = list(rows[0])
    cells = [[{"text": shown(row[head]), "value": _sorted_by(row[head])} for head in heads] for row in rows]
    return {"heads": heads, "rows": cells}


def _sorted_by(value: Any) -> str:
    """What a column sorts by: numbers with all their digits."""
    return "" if value is None else repr(float(value)) if isinstance(value, int | float) else str(value)


def _svg(figure: Figure) -> str:
    """The figure as SVG in base64, its letters as curves: it looks the same wherever it is read."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _options(context: click.Context) -> Rows:
    """What the command was given, and the defaults, as users write them."""
    rows = []
    for param in context.command.params:
        value = context.params.get(param.name or "")
        if value not in (None, (), False):
            name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
            said = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            rows.append({"option": name, "value": "yes" if value is True else said})
    return rows


def _versions() -> Rows:
    found = [{"part": "Python", "version": platform.python_version()}]
    for name in PACKAGES:
        try:
            found.append({"part": name, "version": metadata.version(name)})
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> Rows:
    facts = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    return [{"of the machine": name, "found": value} for name, value in facts.items()]
