"""Finding and starting Julia, and starting nothing without being asked."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import udlbridge as ub
from udlbridge import backends, config, errors
from udlbridge.backends.jobs import KernelJob
from udlbridge.backends.julia import owner, runtime
from udlbridge.backends.reduction import Reduction

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def no_julia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without any configuration; returns where the configuration file would be."""
    for name in ("UDLBRIDGE_JULIA_EXE", "UDLBRIDGE_JULIA_PROJECT", "PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    monkeypatch.setattr(runtime, "installed_by_juliapkg", lambda: False)
    backends._started.cache_clear()
    return tmp_path / "config.toml"


def test_import_loads_neither_torch_nor_julia() -> None:
    done = python(
        "import sys, udlbridge as ub; ub.Model([ub.Dense(2, 1)]); ub.data, ub.models, ub.ntk, ub.check;"
        "print([m for m in ('torch', 'juliacall', 'juliapkg', 'matplotlib') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_command_line_help_loads_nothing_heavy() -> None:
    done = python(
        "import sys; sys.argv = ['udlbridge', '--help']\n"
        "from udlbridge.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('numpy', 'torch', 'juliacall', 'matplotlib') if m in sys.modules])"
    )
    assert done.stdout.strip().endswith("[]"), done.stderr
    assert "reproduce" in done.stdout


def test_a_check_asks_julia_before_anything_heavy_is_loaded() -> None:
    """Julia's process may wait for the next command: what this imports before it asks is what its user waits for."""
    done = python(
        "import sys, udlbridge.cli.check, udlbridge.analysis.checking, udlbridge.backends.julia.process.client;"
        "heavy = ('torch', 'juliacall', 'juliapkg', 'scipy', 'matplotlib', 'zarr', 'jinja2', 'pandas', 'dask');"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", [name for name in ub.__all__ if name not in ("testing",)])
def test_public_names_exist_and_are_no_modules_by_accident(name: str) -> None:
    value = getattr(ub, name)
    assert name in dir(ub)
    if name in ("check", "ntk", "spectrum", "outputs"):
        assert callable(value)


def test_importing_submodules_does_not_hide_public_functions() -> None:
    code = (
        "import pkgutil, importlib, udlbridge as ub\n"
        "from types import ModuleType\n"
        "before = [n for n in ub.__all__ if isinstance(getattr(ub, n), ModuleType)]\n"
        "for m in pkgutil.iter_modules(ub.__path__):\n"
        "    if m.name != '__main__': importlib.import_module(f'udlbridge.{m.name}')\n"
        "print([n for n in ub.__all__ if isinstance(getattr(ub, n), ModuleType) and n not in before])"
    )
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="No udlbridge attribute tensorflow"):
        _ = ub.tensorflow


def imported(path: Path) -> set[str]:
    """Packages that a source file imports when it runs: not those under `if TYPE_CHECKING`."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        waiting += ast.iter_child_nodes(node)
    return found


def test_one_module_imports_juliacall_and_two_rooms_torch() -> None:
    home = ROOT / "src/udlbridge"
    sources = list(home.rglob("*.py"))
    assert {path.relative_to(home).as_posix() for path in sources if "juliacall" in imported(path)} == {
        "backends/julia/runtime.py"
    }
    torch = {path.relative_to(home).parts[:2] for path in sources if "torch" in imported(path)}
    assert {parts for parts in torch if parts[0] != "conversion"} == {("backends", "pytorch")}


def test_absent_julia_is_an_error_with_the_remedies(no_julia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDLBRIDGE_NO_INSTALL", "1")
    with pytest.raises(errors.JuliaUnavailable, match=r"not set up.*udlbridge julia install.*udlbridge julia use"):
        ub.ntk(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS, backend="julia")
    assert "julia" not in backends.usable()


def test_failed_installation_says_why(no_julia: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    import juliapkg

    def offline() -> None:
        raise OSError("no route to host")

    monkeypatch.delenv("UDLBRIDGE_NO_INSTALL", raising=False)
    monkeypatch.setattr(juliapkg, "resolve", offline)
    with pytest.raises(
        errors.JuliaUnavailable, match=r"could not set up Julia \(OSError: no route to host\)"
    ) as raised:
        backends.get("julia", install=True)
    said = capfd.readouterr().err
    assert "takes several minutes" in said
    assert said.count("once more, with the newest registry") == 1
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_a_registry_that_lags_behind_is_asked_for_anew(no_julia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import juliapkg

    from udlbridge.backends.julia import installing

    asked: list[str | None] = []

    def resolve() -> None:
        asked.append(os.environ.get("JULIA_PKG_SERVER_REGISTRY_PREFERENCE"))
        if asked[-1] is None:
            raise RuntimeError("expected package Flux to be registered\nStacktrace:\n [1] error")

    monkeypatch.delenv("JULIA_PKG_SERVER_REGISTRY_PREFERENCE", raising=False)
    monkeypatch.setattr(juliapkg, "resolve", resolve)
    installing.install()
    assert asked == [None, "eager"]
    assert "JULIA_PKG_SERVER_REGISTRY_PREFERENCE" not in os.environ


@pytest.mark.parametrize("call", [lambda m, x: ub.ntk(m, x, backend="julia"), lambda *_: backends.get("julia")])
def test_a_call_downloads_nothing_unasked(no_julia: Path, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    import juliapkg

    asked: list[int] = []
    monkeypatch.delenv("UDLBRIDGE_NO_INSTALL", raising=False)
    monkeypatch.setattr(juliapkg, "resolve", lambda: asked.append(1))
    with pytest.raises(errors.JuliaUnavailable, match=r"not set up.*What to do: udlbridge julia install\."):
        call(ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS)
    assert asked == []


@pytest.mark.parametrize("missing", ["UDLBRIDGE_JULIA_EXE", "UDLBRIDGE_JULIA_PROJECT"])
def test_half_a_pair_is_refused(no_julia: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in {"UDLBRIDGE_JULIA_EXE", "UDLBRIDGE_JULIA_PROJECT"} - {missing}:
        monkeypatch.setenv(name, "/somewhere")
    with pytest.raises(errors.ConfigError, match=r"both or neither"):
        runtime.location()
    state = backends.availability("julia")
    assert not state.ok
    assert "names only the" in state.reason


def test_order_of_search(no_julia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.location() is None
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/third")
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", "/third")
    assert runtime.location().exe == Path("/third")
    config.write_julia(Path("/second"), Path("/second"))
    assert runtime.location().exe == Path("/second")
    assert runtime.location().source == str(no_julia)
    monkeypatch.setenv("UDLBRIDGE_JULIA_EXE", "/first")
    monkeypatch.setenv("UDLBRIDGE_JULIA_PROJECT", "/first")
    assert runtime.location().exe == Path("/first")


def test_named_project_without_flux(no_julia: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config.write_julia(Path(sys.executable), tmp_path)
    (tmp_path / "Manifest.toml").write_text('[[deps.Zygote]]\nversion = "0.7.12"\n')
    state = backends.availability("julia")
    assert f"lacks {', '.join(sorted(runtime.needed_packages() - {'Zygote'}))}" in state.reason
    assert "Pkg.add" in state.remedy


def test_broken_configuration_file(no_julia: Path) -> None:
    no_julia.write_text("[julia\nexe = 3")
    with pytest.raises(errors.ConfigError, match=r"config.toml is not valid TOML"):
        runtime.location()
    assert "not valid TOML" in backends.availability("julia").reason


def test_a_forked_child_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_STATE", runtime._State(forked=True))
    with pytest.raises(errors.JuliaUnavailable, match=r"forked.*spawn"):
        runtime.start()
    with pytest.raises(errors.JuliaUnavailable, match=r"forked.*spawn"):
        owner.run(runtime.start)


@pytest.mark.julia
@pytest.mark.parametrize("order", [("julia", "torch"), ("torch", "julia")])
def test_both_engines_in_one_process_in_either_order(order: tuple[str, str]) -> None:
    code = (
        "import udlbridge as ub\n"
        "m, x = ub.models.notebook_method1(), ub.models.NOTEBOOK_POINTS\n"
        f"a, b = (ub.ntk(m, x, backend=name) for name in {order!r})\n"
        "print(abs(a - b).max() < 1e-5, a.shape)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True (2, 2)"


@pytest.mark.julia
def test_errors_of_julia_come_as_errors_of_ours() -> None:
    job = KernelJob(ub.models.notebook_method1(), Reduction("one", (7,), 8), "structured")
    with pytest.raises(errors.BackendError, match=r"UDLBridge.bridge_prepare.*outputs = 8"):
        backends.get("julia").prepare(job, ub.models.NOTEBOOK_POINTS)


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    julia = tomllib.loads((ROOT / "julia" / "Project.toml").read_text())
    juliapkg = json.loads((ROOT / "src" / "udlbridge" / "juliapkg.json").read_text())
    assert project == julia["version"] == juliapkg["udlbridge"] == ub.__version__
    for name, entry in juliapkg["packages"].items():
        assert entry["uuid"] == julia["deps"][name]
        assert entry["version"] == julia["compat"][name]
    assert juliapkg["julia"] == julia["compat"]["julia"]
    assert f"## {project}" in (ROOT / "CHANGELOG.md").read_text()
