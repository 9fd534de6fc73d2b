"""`udlbridge practicals`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from udlbridge.cli import EXIT_DISAGREE, EXIT_ERROR
from udlbridge.cli.common import backends_option, completed_engines, engines
from udlbridge.cli.pages import report_option, write_page
from udlbridge.cli.targets import UserPath, force_option, forced, json_option, plot_option, report, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from udlbridge.words import EngineWord

practical_data_option = click.option(
    "--data",
    "folder",
    type=UserPath(path_type=Path),
    metavar="FOLDER",
    help="Folder with the files of MNIST-1D or MNIST, or with folders `mnist1d` and `mnist`. [UDLBRIDGE_DATA]",
)


def _completed(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """Names of practicals."""
    from udlbridge.udl import practicals

    return [name for name in (*practicals.names(), "all") if name.startswith(begun)]


@click.group(
    invoke_without_command=True,
    short_help="Compute practicals and hold their figures.",
    epilog="Example: udlbridge practicals run 3 7",
)
@json_option
@force_option
@click.pass_context
def command(context: click.Context, json_file: Path | None) -> None:
    """List the practicals; `run` computes their figures and holds them against their sources."""
    if context.invoked_subcommand is not None:
        if json_file is not None:
            context.fail(f"--json belongs after `{context.invoked_subcommand}`")
        return
    from udlbridge.udl import practicals

    titles = {name: practicals.title(name) for name in practicals.names()}
    report("\n".join(f"{name:<26}{title}" for name, title in titles.items()), json_file)
    if json_file is not None:
        write_json(titles, json_file)


@command.command(
    short_help="Run practicals and say which figures hold.", epilog="Example: udlbridge practicals run losses"
)
@click.argument("names", nargs=-1, required=True, shell_complete=_completed)
@click.option(
    "--backend",
    default=None,
    metavar="NAMES",
    shell_complete=completed_engines,
    help="torch, julia, reference, several with commas, or all that run here.  [default: the default engine]",
)
@click.option("--full", is_flag=True, help="Run what takes long, too, where a practical has such figures.")
@practical_data_option
@plot_option
@json_option
@report_option
@force_option
def run(
    names: tuple[str, ...],
    backend: EngineWord | None,
    full: bool,
    folder: Path | None,
    plots: Path | None,
    json_file: Path | None,
    html: Path | None,
) -> int:
    """Run the practicals NAMES (names or numbers), or "all".

    Prints, for every figure, what the source or an independent computation says, what each engine gives, the difference
    and a verdict; figures of the data alone, which no engine computes, once and apart. The exit code is 0 only if all
    hold, 1 if one differs, and 2 if a practical could not run; the others run all the same. With several engines each
    has a folder of its own for its pictures.
    """
    from udlbridge import backends
    from udlbridge.udl import practicals

    selected, left_out = ([backends.get(None).name], {}) if backend is None else engines(backend)
    results: dict[str, dict[str, Any]] = {}
    folders = {engine: _pictures_in(plots, engine, len(selected)) for engine in selected}
    for pictures in folders.values():
        for each in _full_names(names):
            if pictures is not None and not forced():
                practicals.check_pictures(each, pictures)
    with practicals.data_from(folder):
        for each in _full_names(names):
            longer = full and hasattr(practicals.load(each), "full_rows")
            report(f"{practicals.title(each)}  [{each}]\n", json_file)
            found = {}
            for engine in selected:
                found[engine] = _one(each, engine, longer, folders[engine], json_file)
            results[each] = {"engines": found, "data": _of_data(found, json_file)}
    counts = {engine: _count({name: each["engines"][engine] for name, each in results.items()}) for engine in selected}
    for engine, count in counts.items():
        report(f"{count.words} with backend {engine}{count.besides}", json_file)
    data = _count({name: {"rows": each["data"], "error": None} for name, each in results.items()})
    if data.total:
        report(f"{data.words}, of the data alone", json_file)
    for engine, reason in left_out.items():
        report(f"{engine} was left out: {reason}", json_file)
    failed = any(count.failed for count in counts.values())
    differing = any(count.held < count.total for count in (*counts.values(), data))
    if html is not None:
        _write(html, results, selected[0], counts, json_file)
    if json_file is not None:
        ok = not failed and not differing
        write_json({"backends": selected, "skipped": left_out, "ok": ok, "practicals": results}, json_file)
    if failed:
        return EXIT_ERROR
    return EXIT_DISAGREE if differing else 0


@command.command(
    "table", short_help="Figures in every engine, as Markdown.", epilog="Example: udlbridge practicals table 2"
)
@click.argument("names", nargs=-1, required=True, shell_complete=_completed)
@backends_option
@practical_data_option
@click.option(
    "--write",
    "page",
    type=UserPath(path_type=Path, written=True),
    metavar="FILE",
    help="Put the tables where their marks stand in this file.",
)
@json_option
@force_option
def table(
    names: tuple[str, ...], backend: EngineWord, folder: Path | None, page: Path | None, json_file: Path | None
) -> None:
    """Compare the figures of the sources of NAMES (or "all") with ours, in every engine, as Markdown tables."""
    from udlbridge import backends
    from udlbridge.atomic import check_target
    from udlbridge.errors import OptionError
    from udlbridge.udl import practicals
    from udlbridge.udl.practicals import overview

    selected, wanted = backends.selected(backend), _full_names(names)
    if page is not None:
        check_target(page, OptionError, f"--write {page}")
        overview.check_page(page, wanted)
    tables, rows = {}, {}
    for each in wanted:
        with practicals.data_from(folder):
            found = {engine: practicals.run(each, engine) for engine in selected}
        tables[each] = overview.comparison(found)
        rows[each] = {engine: [row.to_dict() for row in own] for engine, own in found.items()}
        if page is None:
            report(f"{practicals.title(each)}\n\n{tables[each]}\n", json_file)
        else:
            overview.write(page, {each: tables[each]})
            report(f"wrote the figures of {each} to {page}", json_file)
    if json_file is not None:
        write_json(rows, json_file)


def _write(
    html: Path,
    results: dict[str, dict[str, Any]],
    engine: EngineWord,
    counts: dict[str, _Count],
    json_file: Path | None,
) -> None:
    """The page of practicals: their figures on every engine, and their pictures on the first one."""
    from udlbridge.udl import practicals

    text = [f"{count.words} with backend {name}{count.besides}" for name, count in counts.items()]
    tables: dict[str, Any] = {}
    pictures: dict[str, Figure] = {}
    for each, result in results.items():
        title = practicals.title(each)
        for name, found in result["engines"].items():
            tables[f"{title} [{name}]"] = found["rows"]
            text += [f"{each} could not run on {name}: {found['error']}"] if found["error"] is not None else []
        tables[f"{title}, of the data alone"] = result["data"]
        if result["engines"][engine]["error"] is None:
            pictures |= _pictures(each, title, engine)
    write_page(html, "\n".join(text), tables, pictures, json_file)


def _pictures(name: str, title: str, engine: EngineWord) -> dict[str, Figure]:
    from udlbridge.udl import practicals

    found = practicals.drawn(name, engine)
    return {f"{title}: {label}" if label else title: figure for label, figure in found.items()}


def _pictures_in(plots: Path | None, engine: str, engines: int) -> Path | None:
    """The folder for the pictures of one of so many engines."""
    return plots / engine if plots is not None and engines > 1 else plots


def _full_names(names: tuple[str, ...]) -> list[str]:
    """The practicals that are meant, in the order given, each once."""
    from udlbridge.udl import practicals

    if "all" in names:
        return practicals.names()
    return list(dict.fromkeys(practicals.full_name(name) for name in names))


def _one(name: str, engine: EngineWord, full: bool, plots: Path | None, json_file: Path | None) -> dict[str, Any]:
    """Run and report one practical with one engine; an error of this package is part of the result."""
    import time

    from udlbridge.errors import UDLBridgeError
    from udlbridge.udl import practicals

    started = time.perf_counter()
    rows: list[practicals.Row] = []
    error, text = None, ""
    try:
        rows = practicals.run(name, engine, full=full)
        text = practicals.report(name, engine)
        computed = practicals.table([row for row in rows if row.engine])
        said = f"{text}\n\n{computed}" if text else computed
        for path in [] if plots is None else practicals.save_pictures(name, plots, engine):
            said += f"\nwrote {path}"
    except UDLBridgeError as problem:
        error = str(problem)
        said = f"could not run: {error}"
    seconds = time.perf_counter() - started
    report(f"{engine}, {seconds:.1f} s\n{said}\n", json_file)
    return {"seconds": seconds, "error": error, "text": text, "rows": rows}


def _of_data(found: dict[str, dict[str, Any]], json_file: Path | None) -> list[dict[str, Any]]:
    """Take the rows of the data alone out of the engines' results, where they are the same, and report them once."""
    from udlbridge.udl import practicals

    lists = [result["rows"] for result in found.values() if result["error"] is None]
    data = [row for row in lists[0] if not row.engine] if lists else []
    for result in found.values():
        result["rows"] = [row.to_dict() for row in result["rows"] if row.engine]
    if data:
        report(f"of the data alone\n{practicals.table(data)}\n", json_file)
    return [row.to_dict() for row in data]


class _Count(NamedTuple):
    """Of the figures of several practicals: how many hold, of how many; skipped ones; what could not run."""

    held: int
    total: int
    skipped: int
    failed: list[str]

    @property
    def words(self) -> str:
        return f"{self.held} of {self.total} figures hold" if self.total else "nothing to hold"

    @property
    def besides(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return skipped + (f"; could not run: {', '.join(self.failed)}" if self.failed else "")


def _count(results: dict[str, dict[str, Any]]) -> _Count:
    from udlbridge.udl import practicals

    rows = [row for result in results.values() for row in result["rows"]]
    held = [row["ok"] for row in rows if row["origin"] != practicals.SKIPPED]
    failed = [name for name, result in results.items() if result["error"] is not None]
    return _Count(sum(held), len(held), len(rows) - len(held), failed)
