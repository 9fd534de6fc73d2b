"""`udlbridge doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.targets import force_option, json_option, report, write_json


@click.command(
    short_help="Say what is missing, and what mends it.",
    epilog="Example: udlbridge doctor --json doctor.json",
)
@json_option
@force_option
def command(json_file: Path | None) -> int:
    """Say what is here, what is missing, and the one command that mends each.

    The exit code is 0 only if nothing is missing.
    """
    from udlbridge.cli.findings import config_path, examine, to_dict

    findings = examine()
    width = max(len(finding.part) for finding in findings)
    for finding in findings:
        report(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.part:<{width}}  {finding.found}", json_file)
        if finding.remedy:
            report(f"         {'':<{width}}  -> {finding.remedy}", json_file)
    report(f"configuration: {config_path()}", json_file)
    if json_file is not None:
        write_json(to_dict(findings), json_file)
    return 0 if all(finding.ok for finding in findings) else 1
