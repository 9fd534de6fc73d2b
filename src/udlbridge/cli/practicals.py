"""`udlbridge practicals`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from udlbridge.cli import EXIT_DISAGREE, EXIT_ERROR
from udlbridge.cli.common import check_json_target, json_option, report, write_json


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the practicals; `run` computes their figures and holds them against their sources."""
    if context.invoked_subcommand is None:
        from udlbridge.udl import practicals

        for name in practicals.names():
            click.echo(f"{name:<26}{practicals.title(name)}")


@command.command()
@click.argument("name")
@click.option("--backend", default=None, help="torch, julia or reference.")
@click.option("--plot", type=click.Path(path_type=Path), help="Folder for pictures.")
@json_option
def run(name: str, backend: str | None, plot: Path | None, json_file: Path | None) -> int:
    """Run the practical NAME (its name or number), or "all".

    Prints, for every figure, what the source or an independent computation says, what this engine gives, the difference
    and a verdict. The exit code is 0 only if all hold, 1 if one differs, and 2 if a practical could not run; the others
    run all the same.
    """
    from udlbridge import backends
    from udlbridge.udl import practicals

    engine = backends.get(backend).name
    chosen = practicals.names() if name == "all" else [practicals.full_name(name)]
    check_json_target(json_file)
    if plot is not None:
        practicals.prepare_folder(plot)
    results = {}
    for each in chosen:
        results[each] = _one(each, engine, plot, json_file)
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


def _one(name: str, engine: str, plot: Path | None, json_file: Path | None) -> dict[str, Any]:
    """Run and report one practical; an error of this package is part of the result."""
    import time

    from udlbridge.errors import UDLBridgeError
    from udlbridge.udl import practicals

    started = time.perf_counter()
    rows: list[practicals.Row] = []
    error = None
    try:
        rows = practicals.run(name, engine)
        said = practicals.table(rows)
        if plot is not None:
            said += f"\nwrote {practicals.save_picture(name, plot, engine)}"
    except UDLBridgeError as problem:
        error = str(problem)
        said = f"could not run: {error}"
    seconds = time.perf_counter() - started
    report(f"{practicals.title(name)}  [{name}, {engine}, {seconds:.1f} s]\n{said}\n", json_file)
    return {"seconds": seconds, "error": error, "rows": [row.to_dict() for row in rows]}
