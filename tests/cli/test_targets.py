"""Where results go and what files are read: nothing is computed and lost, no file takes more than it should."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import udlbridge as ub
from faults.readers import GRAPH
from helpers import udlbridge
from udlbridge import errors

KERNEL = ("kernel", "--n", "6", "--outputs", "0", "--backend", "reference")
MODEL = ub.Model([ub.Dense(4, 3)])


@pytest.mark.parametrize("name", ["K.csv", "K.npz", "K.txt", "K", "K.zarr.zip"])
def test_a_kernel_is_an_array_or_a_store(tmp_path: Path, name: str) -> None:
    done = udlbridge(*KERNEL, "--out", tmp_path / name)
    assert done.returncode == 2
    assert "a .npy file, or a .zarr store" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["k.npy", "k.csv", "k.npz", "k.txt"])
def test_a_store_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.StoreError, match=r"ends in .*k\.zarr"):
        ub.compute_kernel(MODEL, np.ones((3, 4), np.float32), tmp_path / name, backend="reference")
    assert os.listdir(tmp_path) == []


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where a folder of the name ~ would be seen
    x = np.ones((3, 4), np.float32)
    assert ub.compute_kernel(MODEL, x, "~/K.zarr", backend="reference").complete
    assert ub.KernelStore("~/K.zarr").complete
    assert udlbridge("store", "verify", "~/K.zarr").returncode == 0
    done = udlbridge(*KERNEL, "--out", "~/k.npy", "--json", "~/k.json")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["K.zarr", "k.json", "k.npy"]


def test_convert_says_what_it_can_do_with_a_graph(tmp_path: Path) -> None:
    GRAPH.save(tmp_path / "g.safetensors")
    done = udlbridge("convert", tmp_path / "g.safetensors", tmp_path / "h.safetensors", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert "nodes" in done.stdout
    assert ub.Graph.load(tmp_path / "h.safetensors") == GRAPH.astype("float32")
    for words, said in {
        (tmp_path / "g.npz",): "a Graph as .npz",
        (tmp_path / "i.safetensors", "--strip", "auto"): "holds a graph",
    }.items():
        done = udlbridge("convert", tmp_path / "g.safetensors", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert "ub." not in done.stderr
        assert not words[0].exists()


def test_home_of_networks_runs_and_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    x = np.ones((3, 4), np.float32)
    MODEL.save("~/m.safetensors")
    assert ub.Model.load("~/m.safetensors") == MODEL
    GRAPH.save("~/g.safetensors")
    assert ub.Graph.load("~/g.safetensors") == GRAPH
    run = ub.train(MODEL, x, np.arange(3), epochs=1, backend="reference", save_to="~/r.safetensors", progress=False)
    run.save("~/s.safetensors")
    assert ub.TrainingRun.load("~/r.safetensors").model == run.model
    ub.predict.solve(np.eye(3), np.ones(3), diag_reg=1e-2, state="~/t.safetensors", progress=False)
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}.safetensors" for name in "mgrst"}
    (tmp_path / "made.py").write_text(
        "import udlbridge as ub\n\n\ndef make():\n    return ub.Model([ub.Dense(4, 3)])\n"
    )
    common = ("--n", "3", "--backend", "reference", "--samples", "random")
    for name in ("~/m.safetensors", "~/made.py:make"):
        done = udlbridge("check", "--model", name, "--against", "~/m.safetensors", *common)
        assert done.returncode == 0, done.stderr


def never(*arguments: object, **options: object) -> None:
    raise AssertionError("it was computed")


@pytest.mark.parametrize("network", ["graph", "module"])
def test_an_array_of_any_network_is_checked_before_it_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    GRAPH.save(tmp_path / "graph.safetensors")
    (tmp_path / "module.py").write_text(
        "import torch\n\n\ndef make():\n    return torch.nn.Linear(4, 1000)\n", encoding="utf-8"
    )
    name = {"graph": tmp_path / "graph.safetensors", "module": f"{tmp_path / 'module.py'}:make"}[network]
    size = () if network == "graph" else ("--shape", "4")
    monkeypatch.setattr("udlbridge.store.array_files.ntk", never)
    (tmp_path / "file").touch()
    command = ("kernel", "--n", "10", "--model", name, "--samples", "random", *size, "--out")
    done = udlbridge(*command, tmp_path / "file" / "K.npy")
    assert done.returncode == 2
    assert "is not a folder" in done.stderr
    monkeypatch.setattr("udlbridge.store.array_files.psutil.virtual_memory", lambda: SimpleNamespace(available=100))
    done = udlbridge(*command, tmp_path / "K.npy")
    assert done.returncode == 2
    assert "the memory that is free" in done.stderr


def test_a_state_that_cannot_be_written_is_known_before_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udlbridge.cli.predict.load_model", never)
    (tmp_path / "file").touch()
    done = udlbridge("predict", "--train", "10", "--test", "2", "--state", tmp_path / "file" / "state.safetensors")
    assert done.returncode == 2
    assert "is not a folder" in done.stderr


def test_a_page_without_a_place_is_known_before_the_practicals_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udlbridge.udl.practicals.run", never)
    page = tmp_path / "page.md"
    page.write_text("nothing\n", encoding="utf-8")
    for path, words in (
        (page, "has no place for 02_losses"),
        (tmp_path / "none.md", "cannot be read"),
        (tmp_path, "folder"),
    ):
        done = udlbridge("practicals", "table", "02", "--backend", "reference", "--write", path)
        assert done.returncode == 2
        assert words in done.stderr


LONG = "x" * 300


@pytest.mark.parametrize(
    "command",
    [
        (*KERNEL, "--out", f"{LONG}.npy"),
        (*KERNEL, "--out", f"{LONG}.zarr"),
        (*KERNEL, "--out", "K.npy", "--json", LONG),
        (*KERNEL, "--out", "K.npy", "--data", LONG),
        (*KERNEL, "--out", "K.npy", "--model", LONG),
        (*KERNEL, "--out", "K.npy", "--memory", "9" * 400),
        (*KERNEL, "--out", "K.zarr", "--memory", "9" * 400 + "GB"),
        ("kernel", "--n", "6", "--outputs", "9" * 5000, "--backend", "reference", "--out", "K.npy"),
        ("check", "--backend", "reference", "--shape", "²"),
        ("check", "--backend", "reference", "--shape", "9" * 5000),
        ("store", "verify", LONG),
        ("store", "append", "K.zarr", LONG),
        ("spectrum", LONG),
        ("spectrum", "--n", "6", "--plot", LONG),
        ("convert", LONG, "m.npz"),
        ("convert", "m.npz", f"{LONG}.npz"),
    ],
    ids=lambda command: " ".join(part[:12] for part in command),
)
def test_options_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    done = udlbridge(*command)  # another exception than SystemExit fails here
    assert done.returncode == 2
    assert done.stderr
    assert os.listdir(tmp_path) == []


def test_long_paths_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / (LONG + ".zarr")
    with pytest.raises(errors.StoreError, match="cannot be a path"):
        ub.compute_kernel(MODEL, np.ones((3, 4), np.float32), path, backend="reference")
    with pytest.raises(errors.StoreError, match="not a kernel store"):
        ub.KernelStore(path)
    with pytest.raises(errors.ModelFileError):
        MODEL.save(path)
    with pytest.raises(errors.ModelFileError):
        ub.Model.load(path)


def test_a_header_that_claims_what_the_file_does_not_have(tmp_path: Path) -> None:
    """A .npy file of 128 bytes that says it is 8 TB: refused before memory is taken."""
    np.save(tmp_path / "k.npy", np.eye(2))
    content = (tmp_path / "k.npy").read_bytes()
    (tmp_path / "k.npy").write_bytes(content.replace(b"(2, 2), }            ", b"(1000000, 1000000), }"))
    done = udlbridge("spectrum", tmp_path / "k.npy")
    assert done.returncode == 2
    assert "is not a .npy file" in done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((*KERNEL, "--out", "K.npy", "--json", "K.npy"), "--out and --json both write K.npy"),
        ((*KERNEL, "--out", "K.npy", "--json", "./new/../K.npy"), "--out and --json both write"),
        ((*KERNEL, "--json", "K.html", "--report", "K.html", "--plan"), "both write K.html"),
        ((*KERNEL, "--out", "K.zarr", "--json", "K.zarr/k.json"), "both write K.zarr/k.json"),
        (
            (*KERNEL, "--samples", "x.npy", "--out", "x.npy", "--force"),
            "--out would overwrite what --samples reads: x.npy",
        ),
        ((*KERNEL, "--out", "link.npy", "--samples", "x.npy", "--force"), "--out would overwrite what --samples reads"),
        ((*KERNEL, "--model", "m.npz", "--out", "K.npy", "--json", "m.npz", "--force"), "what --model reads: m.npz"),
        ((*KERNEL, "--model", "net.py:make", "--plan", "--json", "net.py", "--force"), "what --model reads: net.py"),
        (("check", "--against", "m.npz", "--json", "m.npz", "--force"), "what --against reads: m.npz"),
        (("convert", "m.npz", "new.npz", "--json", "new.npz"), "both write new.npz"),
        (("convert", "m.npz", "m.npz", "--force"), "OUT would overwrite what IN reads: m.npz"),
        (("spectrum", "x.npy", "--json", "x.npy", "--force"), "--json would overwrite what KERNEL_FILE reads: x.npy"),
        (("predict", "--state", "s.json", "--json", "s.json"), "--state and --json both write s.json"),
        (("align", "--json", "p/alignment.png", "--plot", "p"), "both write p/alignment.png"),
        (("align", "--write", "page.html", "--report", "page.html"), "both write page.html"),
    ],
    ids=lambda part: " ".join(map(str, part)) if isinstance(part, tuple) else "",
)
def test_no_output_takes_the_place_of_another_or_of_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.eye(3))
    os.symlink("x.npy", "link.npy")
    MODEL.save("m.npz")
    Path("net.py").write_text("def make():\n    raise AssertionError\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = udlbridge(*command)
    assert done.returncode == 2
    assert said in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_devices_are_no_files_to_lose() -> None:
    done = udlbridge(*KERNEL, "--plan", "--json", os.devnull, "--report", os.devnull)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["page.txt", "page", "page.html.gz", "-"])
def test_a_page_ends_in_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = udlbridge(*KERNEL, "--out", "K.npy", "--report", name)
    assert done.returncode == 2
    assert "--report" in done.stderr
    assert "Allowed: .html" in done.stderr
    assert os.listdir(tmp_path) == []
