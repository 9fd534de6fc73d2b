"""`udlbridge julia install|status|use|forget`."""

from __future__ import annotations

from pathlib import Path

import click

from udlbridge.cli.targets import UserPath


@click.group(short_help="Set up, look at, or name a Julia.", epilog="Example: udlbridge julia status")
def command() -> None:
    """Set up the Julia engine, look at it, or point to a Julia that you have."""


@command.command(short_help="Download Julia and its packages.", epilog="Example: udlbridge julia install")
def install() -> int:
    """Download Julia and its packages with juliapkg (once, about 1 GB, several minutes), and start it."""
    from udlbridge import backends
    from udlbridge.backends.julia import installing, runtime

    named = runtime.location()
    if named is not None:
        click.echo(f"{named.source} names {named.exe} already: nothing is downloaded")
    elif not runtime.availability().ok:
        installing.install()
    for name, version in backends.get("julia").versions().items():
        click.echo(f"{name:<10} {version}")
    return 0


@command.command(short_help="Say which Julia would be used.", epilog="Example: udlbridge julia status")
def status() -> int:
    """Say which Julia would be used, without starting it. The exit code is 0 only if it can be used."""
    from udlbridge.backends.julia import runtime

    named = runtime.location()
    state = runtime.availability()
    if named is not None:
        click.echo(f"executable  {named.exe}\nproject     {named.project}\nnamed by    {named.source}")
    elif state.ok:
        found = runtime.juliapkg_location()
        click.echo(f"executable  {found.exe}\nproject     {found.project}\nset up by   juliapkg")
    click.echo("usable" if state.ok else f"not usable: {state.reason}\n-> {state.remedy}")
    return 0 if state.ok else 1


@command.command(
    short_help="Name a Julia that you have.",
    epilog="Example: udlbridge julia use --exe /usr/bin/julia --project environment",
)
@click.option(
    "--exe", type=UserPath(path_type=Path, exists=True, dir_okay=False), required=True, help="The julia binary."
)
@click.option(
    "--project",
    type=UserPath(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="An environment with Flux, Zygote, NNlib, ForwardDiff, JSON and PythonCall.",
)
def use(exe: Path, project: Path) -> int:
    """Point to an existing Julia and environment, for machines without a network; kept in the configuration file.

    Nothing is written where the executable is not Julia.
    """
    from udlbridge import config
    from udlbridge.backends.julia import probe, runtime

    click.echo(f"Julia {probe.version_of(exe.resolve())}")
    path = config.write_julia(exe.resolve(), project.resolve())
    click.echo(f"wrote {path}")
    state = runtime.availability()
    click.echo("usable" if state.ok else f"not usable yet: {state.reason}\n-> {state.remedy}")
    return 0 if state.ok else 1


@command.command(short_help="Undo `use`.", epilog="Example: udlbridge julia forget")
def forget() -> int:
    """Undo `use`: take the Julia that it named out of the configuration file. All else in the file stays."""
    from udlbridge import config

    found = config.forget_julia()
    click.echo(f"{config.config_file()} names no Julia" + (" any more" if found else ""))
    return 0
