"""The Julia runtime: where it is, starting it once, and the only import of juliacall.

Order of search: the pair `UDLBRIDGE_JULIA_EXE` and `UDLBRIDGE_JULIA_PROJECT`; the same two in the user's configuration
file; juliacall's own variables; else what juliapkg has downloaded, by `udlbridge julia install`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from udlbridge import config
from udlbridge.backends.engine import Availability
from udlbridge.backends.julia import probe
from udlbridge.backends.julia.probe import REMEDIES
from udlbridge.errors import ConfigError, JuliaUnavailable
from udlbridge.paths import user_path

NO_INSTALL = "UDLBRIDGE_NO_INSTALL"
"""Where it says yes, no command downloads Julia but `udlbridge julia install`."""

INSTALL = "udlbridge julia install"
"""The command that sets Julia up where there is none; a call of the library never downloads anything by itself."""


@dataclass(frozen=True)
class Location:
    """An existing Julia and the environment to run in, and where they were named."""

    exe: Path
    project: Path
    source: str


def package_path() -> Path:
    """The folder of the Julia package UDLBridge: inside an installed wheel, at the top of a checkout otherwise.

    Raises:
        JuliaUnavailable: it is in neither place.
    """
    here = Path(__file__).resolve().parents[2]
    for candidate in (here / "julia", here.parent.parent / "julia"):
        if (candidate / "Project.toml").is_file():
            return candidate
    raise JuliaUnavailable("the Julia package that udlbridge ships is not there", remedy="install udlbridge again")


def location() -> Location | None:
    """The Julia that the user named; None leaves it to juliapkg.

    Raises:
        ConfigError: if only one of exe and project is named: juliacall needs both or neither; or the configuration
            file cannot be used.
    """
    exe_in_file, project_in_file = config.julia()
    for source, exe, project in (
        ("the environment", os.environ.get("UDLBRIDGE_JULIA_EXE"), os.environ.get("UDLBRIDGE_JULIA_PROJECT")),
        (str(config.config_file()), exe_in_file, project_in_file),
        (
            "juliacall's own variables",
            os.environ.get("PYTHON_JULIACALL_EXE"),
            os.environ.get("PYTHON_JULIACALL_PROJECT"),
        ),
    ):
        if exe and project:
            return Location(user_path(exe), user_path(project), source)
        if exe or project:
            raise ConfigError(
                f"{source} names only the {'executable' if exe else 'project'} of Julia",
                allowed="both or neither",
                remedy="set UDLBRIDGE_JULIA_EXE and UDLBRIDGE_JULIA_PROJECT, or use `udlbridge julia use`",
            )
    return None


def installed_by_juliapkg() -> bool:
    """Whether juliapkg has already set up Julia and the packages for this Python environment."""
    try:
        import juliapkg.deps

        return bool(juliapkg.deps.can_skip_resolve())
    except Exception:  # an unreadable state of juliapkg is the same as none: it resolves anew
        return False


def juliapkg_location() -> Location:
    """What juliapkg has set up; only after `installed_by_juliapkg`."""
    import juliapkg

    return Location(Path(juliapkg.executable()), Path(juliapkg.project()), "juliapkg")


def availability() -> Availability:
    """Whether Julia can be used here, by looking only: nothing is started or downloaded."""
    if _STATE.apart or ("juliacall" in sys.modules and _STATE.module is not None and not _STATE.forked):
        return Availability(True)
    if importlib.util.find_spec("juliacall") is None:
        return Availability(False, "the Python package juliacall is not installed", "pip install juliacall")
    try:
        named, allowed = location(), not config.switched_on(NO_INSTALL)
        config.julia_place(), config.julia_linger()
    except ConfigError as error:
        return Availability(False, error.given, error.remedy)
    if named is None:
        if installed_by_juliapkg():
            return Availability(True)
        reason = "Julia is not set up for this Python environment"
        return Availability(False, reason, INSTALL if allowed else REMEDIES, installable=allowed)
    if not named.exe.is_file():
        return Availability(False, f"there is no Julia at {named.exe}, which {named.source} names", REMEDIES)
    missing = sorted(needed_packages() - set(project_versions(named.project)))
    if missing:
        words = f"the Julia project {named.project}, which {named.source} names, lacks {', '.join(missing)}"
        adds = ", ".join(f'"{name}"' for name in missing)
        return Availability(False, words, f"{named.exe} --project={named.project} -e 'using Pkg; Pkg.add([{adds}])'")
    return Availability(True)


def needed_packages() -> set[str]:
    """Names of the Julia packages that a project must have: those that juliapkg would install, and PythonCall."""
    listed = json.loads((Path(__file__).resolve().parents[2] / "juliapkg.json").read_text(encoding="utf-8"))
    return {*listed["packages"], "PythonCall"}


def project_versions(project: Path) -> dict[str, str]:
    """Versions of all packages in a project's manifest, without starting Julia; empty if there is none."""
    for name in ("Manifest.toml", "JuliaManifest.toml"):
        try:
            with (project / name).open("rb") as file:
                manifest = tomllib.load(file)
        except (OSError, ValueError):  # not TOML, or not text
            continue
        entries = manifest.get("deps", {})
        return {package: str(rows[0].get("version", "?")) for package, rows in entries.items()}
    return {}


THREADS = "1"
"""Of Julia: the work is in BLAS, which has threads of its own, and with one thread Julia needs no signal handlers, so
that Python keeps Ctrl-C and its debuggers."""


@dataclass
class _State:
    """What this process holds of Julia; `apart`: whether one of its own computes for this one."""

    module: Any = None
    main: Any = None
    library: ctypes.PyDLL | None = None
    thread: int | None = None
    starting: bool = False
    forked: bool = False
    apart: bool = False


_STATE = _State()


def start() -> Any:
    """The Julia module UDLBridge, starting Julia if need be (seconds, and once minutes for precompilation).

    Julia belongs to the thread that starts it: `owner.run` is the way to call this, and all that it returns.

    Raises:
        JuliaUnavailable: with the cause, Julia's own last lines where it failed or hung, and the remedies.
        ConfigError: settings of juliacall with which it would end this process, or start nothing.
    """
    check_not_forked()
    if _STATE.module is not None:
        return _STATE.module
    state = availability()
    if not state.ok:
        raise JuliaUnavailable(state.reason, remedy=state.remedy)
    named = location()
    _check_settings()
    installation = named or juliapkg_location()
    if "juliacall" not in sys.modules:
        # juliacall waits for this without end, and does not say what Julia said.
        probe.check_start(installation.exe, installation.project)
    _set_defaults(named)  # now that this Julia works: what is set here stays, and would hide another one
    _STATE.starting = True  # from here on a fork would copy a part of Julia
    try:
        import juliacall

        main = juliacall.Main
        base = main.Base
        # Ours comes last: Julia looks for the dependencies of a package up to the environment that names them, and it
        # is the user's environment, before ours, that has them.
        base.push_b(base.LOAD_PATH, str(package_path()))
        module = base.require(main, base.Symbol("UDLBridge"))
        module.bridge_start()
        _STATE.main, _STATE.module = main, module
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        said = probe.load_failure(installation.exe, installation.project)
        raise JuliaUnavailable(f"Julia did not start ({why}){said and '; ' + said}", remedy=REMEDIES) from None
    finally:
        _STATE.starting = False
    _STATE.library, _STATE.thread = _internal_library(), threading.get_ident()
    return module


def set_apart(running: bool) -> None:
    """Say whether a process of Julia's own computes for this one; juliacall, imported later, finds the same Julia."""
    _STATE.apart = running
    named = location() if running else None
    if named is not None:
        _name_to_juliacall(named)


def in_first_thread() -> bool:
    """Whether Julia, which someone has started, was started in the thread that asks."""
    import juliacall

    return int(juliacall.Main.Base.Threads.threadid()) == 1


def _internal_library() -> ctypes.PyDLL | None:
    """The library in which Julia's threads say whether collections may happen; the public one does not have that."""
    for path in julia_base().Libc.Libdl.dllist():
        if "libjulia-internal" in Path(str(path)).name:
            library = ctypes.PyDLL(str(path))
            library.jl_gc_safe_enter.argtypes, library.jl_gc_safe_enter.restype = [], ctypes.c_int8
            library.jl_gc_safe_leave.argtypes, library.jl_gc_safe_leave.restype = [ctypes.c_int8], None
            return library
    return None


@contextlib.contextmanager
def parked() -> Iterator[None]:
    """Within it, the thread that started Julia does not touch it, and collections do not wait for that thread.

    In any other thread it does nothing: Julia does not know these, and would crash.
    """
    library = _STATE.library
    if library is None or _STATE.thread != threading.get_ident():
        yield
        return
    state = library.jl_gc_safe_enter()
    try:
        yield
    finally:
        library.jl_gc_safe_leave(state)


def check_not_forked() -> None:
    """Raises JuliaUnavailable in a process that was forked from one in which Julia runs."""
    if _STATE.forked:
        raise JuliaUnavailable(
            "this process was forked after Julia had started, and Julia does not survive that",
            remedy='use multiprocessing.set_start_method("spawn")',
        )


def julia_base() -> Any:
    """Julia's module Base, after `start`."""
    start()
    return _STATE.main.Base


def _set_defaults(named: Location | None) -> None:
    """juliacall reads these at import. The user's own settings win, but for the pair that has to go together."""
    if named is not None:
        _name_to_juliacall(named)
    os.environ.setdefault("PYTHON_JULIACALL_STARTUP_FILE", "no")
    os.environ.setdefault("PYTHON_JULIACALL_AUTOLOAD_IPYTHON_EXTENSION", "no")
    os.environ.setdefault("PYTHON_JULIACALL_THREADS", THREADS)


def _name_to_juliacall(named: Location) -> None:
    os.environ["PYTHON_JULIACALL_EXE"] = str(named.exe)
    os.environ["PYTHON_JULIACALL_PROJECT"] = str(named.project)


def _check_settings() -> None:
    """Raises ConfigError: see `start`."""
    if _juliacall_option("init") == "no":
        raise ConfigError(
            "the setting init=no forbids juliacall to start Julia",
            allowed="PYTHON_JULIACALL_INIT=yes, the default",
            remedy="unset PYTHON_JULIACALL_INIT, or take another engine",
        )
    threads = _juliacall_option("threads") or THREADS
    if re.fullmatch(r"(auto|[1-9]\d{0,3})(,(auto|\d{1,4}))?", threads) is None:
        raise ConfigError(
            f"Julia cannot have {threads!r} threads, as PYTHON_JULIACALL_THREADS says",
            allowed="a number from 1 on, or auto",
            remedy="unset PYTHON_JULIACALL_THREADS: the work is in BLAS, whose threads `threads=` sets",
        )


def _juliacall_option(name: str) -> str:
    """A setting of juliacall, from `-X` or the environment, which have this order."""
    said = sys._xoptions.get(f"juliacall-{name}", os.environ.get(f"PYTHON_JULIACALL_{name.upper()}", ""))
    return str(said)


def after_fork(function: Callable[[], None]) -> None:
    """Have it called in every child that is forked from this process, where the system has that."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=function)


def _mark_forked() -> None:
    _STATE.forked = _STATE.starting or _STATE.module is not None


after_fork(_mark_forked)


def juliacall_version() -> str | None:
    """Version of the Python package juliacall, None if it is not installed."""
    try:
        return metadata.version("juliacall")
    except metadata.PackageNotFoundError:
        return None
