"""`udlbridge practicals`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.common import json_option, report, write_json


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the practicals; `run` computes their figures and holds them against their sources."""
    if context.invoked_subcommand is None:
        from udlbridge import practicals

        for name in practicals.names():
            click.echo(f"{name:<26}{practicals.title(name)}")


@command.command()
@click.argument("name")
@click.option("--backend", default=None, help="torch, julia or reference.")
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), help="Folder for pictures.")
@json_option
def run(name: str, backend: str | None, plot: Path | None, json_file: Path | None) -> int:
    """Run the practical NAME (its name or number), or "all".

    Prints, for every figure, what the source or an independent computation says, what this engine gives, the difference
    and a verdict. The exit code is 0 only if all hold.
    """
    import time

    from udlbridge import backends, practicals

    engine = backends.get(backend).name
    chosen = practicals.names() if name == "all" else [practicals.full_name(name)]
    results, verdicts = {}, []
    for each in chosen:
        started = time.perf_counter()
        rows = practicals.run(each, engine)
        seconds = time.perf_counter() - started
        report(f"{practicals.title(each)}  [{each}, {engine}, {seconds:.1f} s]\n{practicals.table(rows)}\n", json_file)
        results[each] = {"seconds": seconds, "rows": [row.to_dict() for row in rows]}
        verdicts += [row.ok for row in rows]
        if plot is not None:
            report(f"wrote {practicals.save_picture(each, plot, engine)}\n", json_file)
    report(f"{sum(verdicts)} of {len(verdicts)} figures hold with backend {engine}", json_file)
    if json_file is not None:
        write_json({"backend": engine, "ok": all(verdicts), "practicals": results}, json_file)
    return 0 if all(verdicts) else 1
