"""`udlbridge julia install|status|stop|use|forget`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udlbridge.cli.targets import UserPath, force_option, json_option, report, write_json

if TYPE_CHECKING:
    from udlbridge.backends.julia.process.folders import Living


@click.group(short_help="Set up, look at, or name a Julia.", epilog="Example: udlbridge julia status")
def command() -> None:
    """Set up the Julia engine, look at it, or point to a Julia that you have."""


@command.command(short_help="Download Julia and its packages.", epilog="Example: udlbridge julia install")
@json_option
@force_option
def install(json_file: Path | None) -> int:
    """Download Julia and its packages with juliapkg (once, about 1 GB, several minutes), and start it."""
    from udlbridge import backends
    from udlbridge.backends.julia import installing, runtime

    named = runtime.location()
    if named is not None:
        report(f"{named.source} names {named.exe} already: nothing is downloaded", json_file)
    elif not runtime.availability().ok:
        installing.install()
    versions = backends.get("julia").versions()
    report("\n".join(f"{name:<10} {version}" for name, version in versions.items()), json_file)
    if json_file is not None:
        write_json({"versions": versions}, json_file)
    return 0


@command.command(short_help="Say which Julia would be used.", epilog="Example: udlbridge julia status")
@json_option
@force_option
def status(json_file: Path | None) -> int:
    """Say which Julia would be used, without starting it, and which processes of Julia there are.

    The exit code is 0 only if it can be used.
    """
    from udlbridge.backends.julia import runtime
    from udlbridge.backends.julia.process import folders

    named = runtime.location()
    state = runtime.availability()
    found = named or (runtime.juliapkg_location() if state.ok else None)
    if found is not None:
        by = "set up by   juliapkg" if named is None else f"named by    {named.source}"
        report(f"executable  {found.exe}\nproject     {found.project}\n{by}", json_file)
    report("usable" if state.ok else f"not usable: {state.reason}\n-> {state.remedy}", json_file)
    processes = folders.living()
    for process in processes:
        report(_line(process), json_file)
    if json_file is not None:
        paths = {} if found is None else {"executable": str(found.exe), "project": str(found.project)}
        rows = [_row(process) for process in processes]
        said = {"usable": state.ok, "reason": state.reason, "remedy": state.remedy}
        write_json({**said, **paths, "processes": rows}, json_file)
    return 0 if state.ok else 1


@command.command(short_help="End the processes of Julia.", epilog="Example: udlbridge julia stop")
@click.option("--all", "busy", is_flag=True, help="Those that compute for someone, too.")
@json_option
@force_option
def stop(busy: bool, json_file: Path | None) -> int:
    """End the processes of Julia that wait for a next command. They end by themselves, too, after ten minutes.

    What else uses Julia with --all is told that its process ended, and starts another one.
    """
    from udlbridge.backends.julia.process import folders

    ended, left = folders.stop(busy=busy)
    for process in ended:
        report(f"ended process {process.pid}", json_file)
    for process in left:
        report(f"{_line(process)}: --all ends it, too", json_file)
    if not ended and not left:
        report("no process of Julia runs", json_file)
    if json_file is not None:
        write_json(
            {"ended": [_row(process) for process in ended], "left": [_row(process) for process in left]}, json_file
        )
    return 0


def _line(process: Living) -> str:
    """A process, in words."""
    import time

    from udlbridge.options import show_bytes, show_seconds

    words = "computes for someone" if process.busy else "waits for a next command"
    if process.until is not None:
        words = f"waits for a next command, at most {show_seconds(max(0.0, process.until - time.time()))}"
    return f"process     {process.pid} {words}; {show_bytes(process.memory)}"


def _row(process: Living) -> dict[str, Any]:
    """A process, as data: `until` in seconds since 1970."""
    return {name: value for name, value in vars(process).items() if name != "folder"}


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
@json_option
@force_option
def use(exe: Path, project: Path, json_file: Path | None) -> int:
    """Point to an existing Julia and environment, for machines without a network; kept in the configuration file.

    Nothing is written where the executable is not Julia.
    """
    from udlbridge import config
    from udlbridge.backends.julia import probe, runtime

    version = probe.version_of(exe.resolve())
    report(f"Julia {version}", json_file)
    path = config.write_julia(exe.resolve(), project.resolve())
    report(f"wrote {path}", json_file)
    state = runtime.availability()
    report("usable" if state.ok else f"not usable yet: {state.reason}\n-> {state.remedy}", json_file)
    if json_file is not None:
        figures = {"version": version, "configuration": str(path)}
        write_json({**figures, "usable": state.ok, "reason": state.reason, "remedy": state.remedy}, json_file)
    return 0 if state.ok else 1


@command.command(short_help="Undo `use`.", epilog="Example: udlbridge julia forget")
@json_option
@force_option
def forget(json_file: Path | None) -> int:
    """Undo `use`: take the Julia that it named out of the configuration file. All else in the file stays."""
    from udlbridge import config

    found = config.forget_julia()
    report(f"{config.config_file()} names no Julia" + (" any more" if found else ""), json_file)
    if json_file is not None:
        write_json({"configuration": str(config.config_file()), "forgotten": found}, json_file)
    return 0
