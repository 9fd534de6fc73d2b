"""Every example runs, on the engines that are here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import udlbridge as ub

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_quickstart() -> None:
    path = EXAMPLES / "quickstart.py"
    assert len(path.read_text().splitlines()) < 40
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "agree; worst" in done.stdout


@pytest.mark.slow
def test_crossing() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "crossing.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch, reference: agree; worst" in done.stdout
    assert "there and back: outputs differ by 0.0e+00" in done.stdout


def printed_by_julia(name: str, *arguments: str) -> str:
    """What an example prints in Julia alone."""
    from udlbridge.backends.julia import runtime

    path = EXAMPLES / name
    assert len(path.read_text().splitlines()) < 40
    julia = runtime.location() or runtime.juliapkg_location()
    load_path = os.pathsep.join([str(julia.project), str(runtime.package_path()), "@stdlib"])
    done = subprocess.run(
        # As the other tests have it (see conftest.py): Julia would compile the package anew for another level.
        [str(julia.exe), "-O1", "--startup-file=no", str(path), *arguments],
        env={**os.environ, "JULIA_LOAD_PATH": load_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.julia
def test_quickstart_in_julia_alone() -> None:
    said = printed_by_julia("quickstart.jl")
    assert "14.2293  11.1088" in said
    assert "PSD: 2 eigenvalues" in said


@pytest.mark.julia
@pytest.mark.slow
def test_crossing_to_julia(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / "crossing.py"), str(tmp_path)], capture_output=True, check=True)
    said = printed_by_julia("crossing.jl", str(tmp_path))
    assert "outputs as PyTorch's: true" in said
    assert "kernel as PyTorch's: true" in said
    assert "the loss falls" in said
    assert ub.Graph.load(tmp_path / "trained.safetensors").params


@pytest.mark.slow
def test_predictions_and_tests() -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, str(EXAMPLES / "predictions_and_tests.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    gaps = [float(line.split()[-1]) for line in lines if line.startswith("  degree")]
    assert len(gaps) == 4
    assert sorted(gaps, reverse=True) == gaps
    spread = {line.split(":")[0].strip(): float(line.split("+- ")[1].split(",")[0]) for line in lines if "+-" in line}
    assert spread["x =  0.05"] < 0.02
    assert spread["x =  3.00"] > 0.1
    chances = [float(line.split("p = ")[1].split()[0]) for line in lines if "by 999 permutations" in line]
    assert chances[0] < 0.01 < chances[1]


@pytest.mark.slow
def test_infinite_width(tmp_path: Path) -> None:
    path = EXAMPLES / "infinite_width.py"
    command = [sys.executable, str(path), "--engines", "torch", "--draws", "4", "--plot", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "slope of the log departure" in done.stdout
    assert {file.name for file in tmp_path.iterdir()} == {"convergence.png", "linearization.png"}
    # At a training point the ensemble is certain, far away it is not.
    shown = {line.split(":")[0]: line.split() for line in done.stdout.splitlines() if line.startswith("x = ")}
    assert float(shown["x = -0.8"][-1]) < 0.01
    assert float(shown["x =  3.0"][-1]) > 0.1


@pytest.mark.slow
def test_the_notebook_of_kernel_regression_runs_and_is_stored_with_its_outputs() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "kernel_regression.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    assert json.dumps([cell.outputs for cell in code]).count("image/png") == 2
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    text = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "t =      inf" in text
    difference = float(text.partition("largest difference ")[2].split()[0])
    assert difference < 1e-8
    gaps = [line.split(", ")[2].split()[0] for line in text.splitlines() if "from the exact one" in line]
    array, operator = (float(gap) for gap in gaps)
    assert array < 1e-6
    assert operator < 1e-3  # its regularisation is relative to a diagonal that is estimated


@pytest.mark.slow
def test_the_notebook_runs_and_is_stored_with_its_outputs() -> None:
    import nbformat
    from nbclient import NotebookClient

    path = EXAMPLES / "flux_kernel_notebook.ipynb"
    notebook = nbformat.read(path, as_version=4)
    stored = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in stored)
    assert "image/png" in json.dumps(stored[-1].outputs)
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    text = json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert "14.229333" in text
    assert "image/png" in text
    assert "DISAGREE" not in text
