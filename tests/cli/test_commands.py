"""The command line, as a user types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import udlbridge as ub
from helpers import random_model, udlbridge
from udlbridge import tolerances
from udlbridge.cli import SPIN_COUNT, group, main


def test_reproduce_prints_the_notebooks_numbers_and_draws(tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    done = udlbridge("reproduce", "--backend", "torch,reference", "--plot", tmp_path / "plots", "--json", target)
    assert done.returncode == 0, done.stderr
    assert "14.2293    11.1088" in done.stdout
    assert "11.1088    9.09461" in done.stdout
    result = json.loads(target.read_text())
    assert set(result) == {"method1", "method2", "agreement", "skipped", "versions"}
    for engine in ("torch", "reference"):
        method1, method2 = result["method1"][engine], result["method2"][engine]
        np.testing.assert_allclose(method1["kernel"], [[14.2293, 11.1088], [11.1088, 9.09461]], rtol=5e-6)
        assert (method1["negative"], method1["verdict"]) == (0, "PSD")
        assert np.shape(method2["kernel"]) == (10, 10)
        assert (method2["negative"], method2["verdict"], len(method2["eigenvalues"])) == (0, "PSD", 10)
    assert result["agreement"]["ok"] is True
    assert 0 < result["agreement"]["worst"] < 1e-5
    assert {"torch", "numpy"} <= set(result["versions"])
    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == [f"method{i}_{kind}.png" for i in (1, 2) for kind in ("agreement", "spectrum")]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (tmp_path / "plots").iterdir())


@pytest.mark.julia
def test_reproduce_on_all_engines(tmp_path: Path) -> None:
    done = udlbridge("reproduce", "--backend", "all", "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["method1"]) == set(result["method2"]) == {"julia", "torch", "reference"}
    assert result["agreement"]["ok"] is True
    assert {"julia", "Flux", "Zygote", "torch"} <= set(result["versions"])


@pytest.mark.usefixtures("julia_nowhere")
def test_reproduce_without_julia_says_so() -> None:
    done = udlbridge("reproduce", "--no-install")
    assert done.returncode == 0
    assert "julia was not compared: there is no Julia at /nowhere/julia" in done.stdout
    done = udlbridge("reproduce", "--backend", "julia")
    assert done.returncode == 2
    assert "there is no Julia at /nowhere/julia" in done.stderr
    assert "Traceback" not in done.stderr


def test_disagreement_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget that nothing keeps, the same run fails."""
    monkeypatch.setitem(tolerances.BUDGETS, "float32", 1e-12)
    done = udlbridge("reproduce", "--backend", "torch,reference")
    assert done.returncode == 1
    assert "THEY DO NOT AGREE" in done.stdout


def test_check(tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    done = udlbridge("check", "--n", "4", "--backend", "torch,reference", "--dtype", "float64", "--json", target)
    assert done.returncode == 0, done.stderr
    assert "torch, reference: agree" in done.stdout
    result = json.loads(target.read_text())
    assert result["ok"]
    assert result["dtype"] == "float64"
    assert result["worst"] < 1e-12


def test_check_of_a_saved_model(tmp_path: Path) -> None:
    random_model([3, 4, 2], ["mish", "identity"]).save(tmp_path / "m.safetensors")
    done = udlbridge(
        "check", "--model", tmp_path / "m.safetensors", "--backend", "torch,reference", "--samples", "random"
    )
    assert done.returncode == 0, done.stderr
    assert "jacobian 1.bias" in done.stdout


def test_kernel_to_npy(tmp_path: Path) -> None:
    done = udlbridge("kernel", "--n", "7", "--outputs", "0", "--backend", "torch", "--out", tmp_path / "K.npy")
    assert done.returncode == 0, done.stderr
    kernel = np.load(tmp_path / "K.npy")
    expected = ub.ntk(ub.models.three_layer_sigmoid(), ub.data.mnist("train", n=7)[0], outputs=0, backend="reference")
    ub.testing.assert_kernels_close(kernel, expected)


def test_errors_have_no_traceback(tmp_path: Path) -> None:
    for args, message in (
        (("check", "--model", "absent.safetensors"), "no model file"),
        (("kernel", "--outputs", "10", "--n", "2", "--backend", "reference", "--out", tmp_path / "K.npy"), "0 to 9"),
        (("reproduce", "--backend", "jax"), "julia, torch, reference"),
        (("reproduce", "--backend", "reference", "--data", "/nowhere"), "not a readable folder"),
    ):
        done = udlbridge(*args)
        assert done.returncode == 2, (args, done)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert udlbridge("frobnicate").returncode == 2


def test_a_file_is_looked_for_before_engines_are_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engines(*_: object, **__: object) -> None:
        raise AssertionError("engines are set up for nothing")

    monkeypatch.setattr("udlbridge.cli.check.engines", engines)
    good, absent = tmp_path / "good.safetensors", tmp_path / "absent.safetensors"
    random_model([3, 2], ["identity"]).save(good)
    for args, words in (
        (["--model", absent], "no model file"),
        (["--model", good, "--against", absent], "no model file"),
        (["--model", good, "--shape", "4"], "last axis of 3"),
        (["--model", good, "--shape", "²"], "positive numbers with commas"),
    ):
        result = CliRunner().invoke(group, ["check", *map(str, args)], standalone_mode=False)
        assert isinstance(result.exception, ub.UDLBridgeError)
        assert words in str(result.exception)


def test_a_file_keeps_its_dtype(tmp_path: Path) -> None:
    path, narrow = tmp_path / "m.safetensors", tmp_path / "narrow.safetensors"
    model = random_model([3, 2], ["tanh"])
    model.save(path)
    model.astype("float32").save(narrow)

    def run(*args: object) -> Result:
        return CliRunner().invoke(group, [str(arg) for arg in args], standalone_mode=False)

    for options, dtype in (((), "float64"), (("--dtype", "float32"), "float32")):
        given = ("--model", path, "--n", 3, "--samples", "random", "--force", *options)
        done = run("check", *given, "--backend", "torch,reference")
        assert f"({dtype}, n = 3)" in done.output
        done = run("spectrum", *given, "--backend", "reference", "--json", tmp_path / "s")
        assert json.loads((tmp_path / "s").read_text())["dtype"] == dtype
        run("kernel", *given, "--backend", "reference", "--out", tmp_path / "K.npy")
        assert np.load(tmp_path / "K.npy").dtype == dtype
    by_name = run(
        "kernel",
        "--model",
        "notebook_method1",
        "--n",
        2,
        "--backend",
        "reference",
        "--out",
        tmp_path / "K.npy",
        "--force",
    )
    assert by_name.exception is None
    assert np.load(tmp_path / "K.npy").dtype == np.float32
    mixed = ("check", "--model", path, "--against", narrow, "--backend", "reference", "--samples", "random")
    assert re.search(r"float64.*float32.*--dtype float64", str(run(*mixed).exception))
    assert run(*mixed, "--dtype", "float32").return_value == 0


@pytest.mark.parametrize("words", ["check", "kernel --out K.npy", "spectrum", "align"])
@pytest.mark.parametrize("n", [0, -1])
def test_no_samples_are_no_number_of_samples(words: str, n: int) -> None:
    result = CliRunner().invoke(group, [*words.split(), "--n", str(n)])
    assert result.exit_code == 2
    assert f"{n} is not in the range x>=1" in result.output


@pytest.mark.usefixtures("julia_nowhere")
def test_doctor() -> None:
    done = udlbridge("doctor", "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["ok"]) == (1, False)
    parts = {part["part"]: part for part in result["parts"]}
    assert parts["torch"]["ok"]
    assert not parts["Julia"]["ok"]
    assert parts["Julia"]["remedy"].startswith("udlbridge julia use")
    text = udlbridge("doctor").stdout
    assert "MISSING  Julia" in text
    assert "-> udlbridge julia use" in text


@pytest.mark.julia
def test_doctor_with_julia() -> None:
    done = udlbridge("doctor", "--json")
    parts = {part["part"]: part for part in json.loads(done.stdout)["parts"]}
    assert all(parts[name]["ok"] for name in ("Julia", "Flux", "Zygote", "PythonCall")), done.stdout
    assert done.returncode == 0


def test_version_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "udlbridge", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"udlbridge {ub.__version__}"


def test_spectrum_of_a_file_and_of_a_network(tmp_path: Path) -> None:
    target = tmp_path / "k.npy"
    x = ub.data.mnist("train", n=30)[0]
    kernel = ub.ntk(ub.models.three_layer_sigmoid(), x, outputs=0, backend="reference")
    np.save(target, kernel)
    results = {}
    common = ("--k", 4, "--json", "-")
    model = ("--model", "3ls", "--n", 30, "--outputs", 0, "--backend", "reference")
    for name, args in {
        "file": (target, "--rank", 51370),
        "file by parts": (target, "--dense-limit", 0),
        "network": model,
        "network by parts": (*model, "--dense-limit", 0),
    }.items():
        done = udlbridge("spectrum", *args, *common)
        assert done.returncode == 0, done.stderr
        results[name] = json.loads(done.stdout)
        assert results[name]["verdict"] in done.stderr
    whole = ub.spectrum(kernel).eigenvalues
    for name, result in results.items():
        assert result["complete"] is ("by parts" not in name)
        np.testing.assert_allclose(result["eigenvalues"][-4:], whole[-4:], rtol=1e-4)
    assert results["file"]["rank_bound"] == results["network by parts"]["rank_bound"] == 30


def test_spectrum_exits_with_1_for_what_is_no_kernel(tmp_path: Path) -> None:
    target = tmp_path / "k.npy"
    np.save(target, np.diag([1.0, -1.0]))
    done = udlbridge("spectrum", target)
    assert (done.returncode, done.stdout.split(":")[0]) == (1, "not PSD")
    target.write_bytes(b"not an array")
    done = udlbridge("spectrum", target)
    assert done.returncode == 2
    assert "is not a .npy file" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("--outputs", "0"), ("--device", "cpu"), ("--n", "3"), ("--cast",), ("--model", "lenet5"), ("--shape", "3")],
)
def test_a_spectrum_of_a_file_takes_no_options_of_networks(tmp_path: Path, words: tuple[str, ...]) -> None:
    target = tmp_path / "k.npy"
    np.save(target, np.eye(3))
    done = udlbridge("spectrum", target, *words)
    assert done.returncode == 2
    assert f"{words[0]} is for kernels of a network" in done.stderr
    assert udlbridge("spectrum", target, "--seed", "1", "--rank", "3", "--quiet").returncode == 0


def test_a_kernel_is_planned_for_an_engine_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from udlbridge.backends.engine import Availability
    from udlbridge.backends.julia import runtime

    monkeypatch.setattr(runtime, "availability", lambda: Availability(False, "Julia is not set up", "install it"))
    done = CliRunner().invoke(group, ["kernel", "--plan", "--n", "60000", "--backend", "julia"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "on julia" in done.output
    assert "not predicted: Julia is not set up" in done.output
    assert "GFLOP/s" not in done.output


def loaded_by(words: tuple[str, ...], folder: Path) -> set[str]:
    """The top modules that a command has imported at its end, in a fresh interpreter."""
    code = f"import sys; sys.argv = ['udlbridge', *{words!r}]\nfrom udlbridge.cli import main\n"
    code += "try: main()\nexcept SystemExit as done: assert not done.code, done.code\n"
    code += "print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


STORES = {"zarr", "numcodecs", "yaml", "filelock", "safetensors"}
"""What opens stores, and models in safetensors files."""


@pytest.mark.parametrize(
    "words",
    [
        ("kernel", "--backend", "reference", "--n", "3", "--out", "k.npy"),
        ("kernel", "--plan", "--backend", "reference"),
        ("spectrum", "--backend", "reference", "--n", "3"),
        ("convert", "m.safetensors", "m.npz"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_needs_no_torch_does_not_import_it(words: tuple[str, ...], tmp_path: Path) -> None:
    random_model([3, 2], ["tanh"]).save(tmp_path / "m.safetensors")
    loaded = loaded_by(words, tmp_path)
    assert not loaded & {"torch", "pandas", "matplotlib", "sklearn"}
    if words[0] != "convert":
        assert not loaded & STORES


def test_a_small_kernel_in_torch_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    np.save(tmp_path / "x.npy", ub.models.NOTEBOOK_POINTS)
    words = ("--model", "notebook_method1", "--samples", "x.npy", "--backend", "torch", "--out", "k.npy")
    loaded = loaded_by(("kernel", *words), tmp_path)
    assert "torch" in loaded
    assert not loaded & {*STORES, "scipy", "pandas", "matplotlib", "sklearn", "jinja2", "sympy", "juliacall"}


@pytest.mark.parametrize(
    ("said", "count"),
    [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["by default", "as users say", "as users say otherwise"],
)
def test_threads_of_torch_soon_sleep(said: dict[str, str], count: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {**said})
    monkeypatch.setattr(sys, "argv", ["udlbridge", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == count
