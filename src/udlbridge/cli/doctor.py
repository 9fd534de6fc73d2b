"""`udlbridge doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.common import write_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """Say what is here, what is missing, and the one command that mends each.

    The exit code is 0 only if nothing is missing.
    """
    from udlbridge.cli.findings import config_path, examine, to_dict

    findings = examine()
    if as_json:
        write_json(to_dict(findings), Path("-"))
    else:
        width = max(len(finding.part) for finding in findings)
        for finding in findings:
            click.echo(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.part:<{width}}  {finding.found}")
            if finding.remedy:
                click.echo(f"         {'':<{width}}  -> {finding.remedy}")
        click.echo(f"configuration: {config_path()}")
    return 0 if all(finding.ok for finding in findings) else 1
