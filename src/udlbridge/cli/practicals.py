"""`udlbridge practicals`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from udlbridge.cli import EXIT_DISAGREE, EXIT_ERROR
from udlbridge.cli.common import UserPath, json_option, plot_option, report, write_json

practical_data_option = click.option(
    "--data",
    "folder",
    type=UserPath(path_type=Path),
    help="Folder with the files of MNIST-1D or MNIST, or with folders `mnist1d` and `mnist`. [UDLBRIDGE_DATA]",
)


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the practicals; `run` computes their figures and holds them against their sources."""
    if context.invoked_subcommand is None:
        from udlbridge.udl import practicals

        for name in practicals.names():
            click.echo(f"{name:<26}{practicals.title(name)}")


@command.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--backend", default=None, help="torch, julia or reference.")
@click.option("--full", is_flag=True, help="Run what takes long, too, where a practical has such figures.")
@practical_data_option
@plot_option
@json_option
def run(
    names: tuple[str, ...],
    backend: str | None,
    full: bool,
    folder: Path | None,
    plots: Path | None,
    json_file: Path | None,
) -> int:
    """Run the practicals NAMES (names or numbers), or "all".

    Prints, for every figure, what the source or an independent computation says, what this engine gives, the difference
    and a verdict. The exit code is 0 only if all hold, 1 if one differs, and 2 if a practical could not run; the others
    run all the same.
    """
    from udlbridge import backends
    from udlbridge.udl import practicals

    engine = backends.get(backend).name
    results = {}
    with practicals.data_from(folder):
        for each in _full_names(names):
            longer = full and hasattr(practicals.load(each), "full_rows")
            results[each] = _one(each, engine, longer, plots, json_file)
    rows = [row for result in results.values() for row in result["rows"] if row["origin"] != practicals.SKIPPED]
    failed = [each for each, result in results.items() if result["error"] is not None]
    differing = sum(not row["ok"] for row in rows)
    skipped = sum(len(result["rows"]) for result in results.values()) - len(rows)
    summary = f"{len(rows) - differing} of {len(rows)} figures hold with backend {engine}"
    summary += f", {skipped} skipped" if skipped else ""
    summary += f"; could not run: {', '.join(failed)}" if failed else ""
    report(summary, json_file)
    if json_file is not None:
        write_json({"backend": engine, "ok": not failed and not differing, "practicals": results}, json_file)
    if failed:
        return EXIT_ERROR
    return EXIT_DISAGREE if differing else 0


@command.command("table")
@click.argument("names", nargs=-1, required=True)
@click.option("--backend", "engines", multiple=True, help="An engine; may be repeated.  [default: all that run here]")
@practical_data_option
@click.option(
    "--write", "page", type=UserPath(path_type=Path), help="Put the tables where their marks stand in this file."
)
def table(names: tuple[str, ...], engines: tuple[str, ...], folder: Path | None, page: Path | None) -> None:
    """Compare the figures of the sources of NAMES (or "all") with ours, in every engine, as Markdown tables."""
    from udlbridge import backends
    from udlbridge.udl import practicals
    from udlbridge.udl.practicals import overview

    selected = backends.selected(engines or None)
    tables = {}
    for each in _full_names(names):
        with practicals.data_from(folder):
            tables[each] = overview.comparison({engine: practicals.run(each, engine) for engine in selected})
        if page is None:
            click.echo(f"{practicals.title(each)}\n\n{tables[each]}\n")
        else:
            overview.write(page, {each: tables[each]})
            click.echo(f"wrote the figures of {each} to {page}")


def _full_names(names: tuple[str, ...]) -> list[str]:
    """The practicals that are meant, in the order given, each once."""
    from udlbridge.udl import practicals

    if "all" in names:
        return practicals.names()
    return list(dict.fromkeys(practicals.full_name(name) for name in names))


def _one(name: str, engine: str, full: bool, plots: Path | None, json_file: Path | None) -> dict[str, Any]:
    """Run and report one practical; an error of this package is part of the result."""
    import time

    from udlbridge.errors import UDLBridgeError
    from udlbridge.udl import practicals

    started = time.perf_counter()
    rows: list[practicals.Row] = []
    error, text = None, ""
    try:
        rows = practicals.run(name, engine, full=full)
        text = practicals.report(name, engine)
        said = f"{text}\n\n{practicals.table(rows)}" if text else practicals.table(rows)
        for path in [] if plots is None else practicals.save_pictures(name, plots, engine):
            said += f"\nwrote {path}"
    except UDLBridgeError as problem:
        error = str(problem)
        said = f"could not run: {error}"
    seconds = time.perf_counter() - started
    report(f"{practicals.title(name)}  [{name}, {engine}, {seconds:.1f} s]\n{said}\n", json_file)
    return {"seconds": seconds, "error": error, "text": text, "rows": [row.to_dict() for row in rows]}
