"""`udlbridge kernel`, `store` and `spectrum` on what can go wrong: one line that says what to do, and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.cli import main, targets

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    ub.Model([ub.Dense(5, 7, "tanh"), ub.Dense(7, 3)]).save("m.safetensors")

    def command(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["udlbridge", *map(str, args)])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return int(done.value.code or 0), out, err

    return command


RANDOM = ("--samples", "random")
KERNEL = ("kernel", "--model", "m.safetensors", "--n", 20, "--outputs", 0, "--backend", "reference", *RANDOM)


def test_json_on_standard_output_is_json_alone(run: Run) -> None:
    for args in (("--plan",), ("--out", "K.zarr", "--verify", 1), ("--out", "K.npy")):
        code, out, err = run(*KERNEL, *args, "--json", "-")
        assert code == 0, err
        assert isinstance(json.loads(out), dict)
        assert "20" in err
    assert json.loads(run(*KERNEL, "--out", "L.npy", "--json", "-")[1])["shape"] == [20, 20]


def test_options_of_stores_are_not_for_arrays(run: Run) -> None:
    for option in (
        ("--resume",),
        ("--storage", "float16"),
        ("--verify", 1),
        ("--executor", "threads:2"),
        ("--dask", "local:2"),
    ):
        code, _, err = run(*KERNEL, "--out", "K.npy", *option)
        assert code == 2
        assert f"{option[0]} is for stores: --out K.zarr" in err
    assert not Path("K.npy").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--threads", 0, "--out", "K.zarr"), "--threads 0"),
        (("--threads", 0, "--plan"), "--threads 0"),
        (("--verify", -1, "--out", "K.zarr"), "--verify"),
        (("--out", "K.safetensors"), "ends in .safetensors"),
        (("--out", "m.safetensors/K.zarr"), "could not be made"),
        (("--out", "m.safetensors/K.npy"), "m.safetensors is not a folder"),
        (("--out", "folder.npy"), "it is a folder"),
        (("--storage", "int8", "--out", "K.zarr"), "bfloat16"),
        (("--executor", "processes", "--out", "K.zarr"), "processes:NUMBER or threads:NUMBER"),
        (("--executor", "processes:0", "--out", "K.zarr"), "processes:NUMBER or threads:NUMBER"),
        (("--dask", "local", "--out", "K.zarr"), "local:NUMBER, or the address"),
        (("--dask", "tcp://127.0.0.1:x", "--out", "K.zarr"), "no scheduler answers"),
        (("--dask", "local:2", "--executor", "threads:2", "--out", "K.zarr"), "give one"),
    ],
)
def test_what_the_kernel_command_refuses(run: Run, args: tuple[object, ...], words: str) -> None:
    os.mkdir("folder.npy")
    code, out, err = run(*KERNEL, *args)
    assert code == 2
    assert words in err
    assert out == ""
    assert sorted(os.listdir()) == ["folder.npy", "m.safetensors"]


def test_arrays_that_do_not_fit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run(*KERNEL[:3], "--n", 10**7, *KERNEL[5:], "--out", "K.npy")
    assert code == 2
    assert "400 TB" in err
    assert "--out K.zarr" in err
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, _, err = run(*KERNEL, "--out", "K.npy")
    assert code == 2
    assert "1.6 kB on disk" in err
    assert "storage" not in err


def test_an_array_that_cannot_be_written_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    code, _, err = run(*KERNEL, "--out", "K.npy")
    assert code == 2
    assert "No space left" in err
    assert os.listdir() == ["m.safetensors"]


def test_the_error_of_storage_is_printed(run: Run) -> None:
    code, out, err = run(*KERNEL, "--dtype", "float64", "--out", "K.zarr", "--storage", "float32")
    assert code == 0, err
    stated = ub.KernelStore("K.zarr").manifest["storage_error"]
    assert f"storage error {stated:.2e}" in out
    assert "storage error" not in run(*KERNEL, "--out", "L.zarr")[1]


def test_store_commands_on_files_that_are_none(run: Run) -> None:
    Path("bad.npy").write_bytes(b"not an array")
    np.savez("several.npz", np.ones(3), np.ones(3))
    for command in ("info", "verify"):
        code, _, err = run("store", command, "m.safetensors")
        assert code == 2
        assert "not a kernel store" in err
    assert run(*KERNEL, "--out", "K.zarr")[0] == 0
    for file in ("bad.npy", "several.npz"):
        code, _, err = run("store", "append", "K.zarr", file)
        assert code == 2
        assert file in err
        assert "What to do" in err
    assert ub.KernelStore("K.zarr").verify().ok


def test_store_commands_say_where_to_compute(run: Run) -> None:
    assert run(*KERNEL, "--out", "K.zarr")[0] == 0
    Path("K.zarr/kernel/c/0/0").unlink()
    options = ("--backend", "torch", "--threads", 1, "--memory", "500MB", "--device", "cpu")
    code, out, err = run("store", "verify", "K.zarr", "--repair", *options)
    assert code == 0, err
    assert "computed 1 tile again" in out
    np.save("new.npy", np.ones((4, 5), "float32"))
    assert run("store", "append", "K.zarr", "new.npy", *options)[0] == 0
    runs = ub.KernelStore("K.zarr").manifest["actual"][1:]
    assert [(one["backend"], one["threads"]) for one in runs] == [("torch", 1)] * 2
    assert run("store", "verify", "K.zarr", "--repair", "--threads", 0)[0] == 2
    assert run("store", "append", "K.zarr", "new.npy", "--memory", "1MB")[0] == 2
    assert ub.KernelStore("K.zarr").shape == (24, 24)


def test_damaged_samples_are_told_and_written_again(run: Run) -> None:
    assert run(*KERNEL, "--out", "K.zarr")[0] == 0
    Path("K.zarr/x/c/0/0").unlink()
    code, out, _ = run("store", "verify", "K.zarr")
    assert code == 1
    assert "x/c/0/0 is missing, which holds the samples" in out
    code, _, err = run("store", "verify", "K.zarr", "--repair")
    assert code == 2
    assert "--resume" in err
    assert run(*KERNEL, "--out", "K.zarr", "--resume")[0] == 0
    assert run("store", "verify", "K.zarr")[0] == 0


def test_what_the_spectrum_command_refuses(run: Run) -> None:
    assert run(*KERNEL, "--out", "K.zarr")[0] == 0
    for args, words in (
        (("--rank", -5), "--rank -5"),
        (("--threads", 0), "--threads 0"),
        (("--dense-limit", 0, "--max-products", 1), "--max-products 1"),
    ):
        code, _, err = run("spectrum", "K.zarr", *args)
        assert code == 2
        assert words in err
    assert run("spectrum", "K.zarr", "--threads", 1, "--dense-limit", 0, "--k", 3)[0] in (0, 1)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every command had a process of its own, and all of them one memory."""
    monkeypatch.setattr(targets, "OF_ONE_PROCESS", ("nothing://",))


def test_what_is_gone_with_the_command_is_refused(run: Run) -> None:
    for args in (
        (*KERNEL, "--out", "memory://K.zarr"),
        ("store", "upload", "K.zarr", "memory://K.zarr"),
        ("store", "verify", "memory://K.zarr"),
        ("spectrum", "memory://K.zarr"),
        ("predict", "--store", "memory://K.zarr"),
    ):
        code, _, err = run(*args)
        assert code == 2
        assert "memory://K.zarr is in the memory of this command, and gone when it ends" in err


def test_stores_at_urls(run: Run, memory: None) -> None:
    pytest.importorskip("obstore")
    assert run(*KERNEL, "--out", "K.zarr")[0] == 0
    url = "memory://command-line/K.zarr"
    copied = f"copied K.zarr to {url}: (20, 20) float32, 1 tile, 262 kB\n"
    assert run("store", "upload", "K.zarr", url)[:2] == (0, copied)
    assert json.loads(run("store", "upload", "K.zarr", f"{url}2", "--json", "-")[1])["n"] == 20
    code, out, _ = run("store", "verify", url)
    assert (code, out) == (0, "1 tile is whole, 0 damaged, 0 missing\n")
    assert json.loads(run("store", "info", url)[1])["n"] == 20
    assert run("spectrum", url)[1] == run("spectrum", "K.zarr")[1] != ""
    for args, words in (
        (("store", "upload", "K.zarr", url), "something at memory://"),
        (("store", "verify", "memory://nothing"), "is not a kernel store"),
        (("spectrum", "ftp://host/K.zarr"), "begins with ftp://"),
        ((*KERNEL, "--out", url), f"{url} exists"),
        ((*KERNEL, "--out", "s3://bucket/K.npy"), "is a URL, where a .zarr store may be; a .npy file wants a path"),
        ((*KERNEL, "--out", "s3://bucket/K"), "ends in nothing"),
        ((*KERNEL, "--out", "L.zarr", "--json", "s3://bucket/k.json"), "is a URL, and this needs a path"),
    ):
        code, _, err = run(*args)
        assert code == 2
        assert words in err
        assert "Traceback" not in err


def test_kernels_at_urls(run: Run, memory: None) -> None:
    pytest.importorskip("obstore")
    url = "memory://command-line/computed.zarr"
    code, out, err = run(*KERNEL, "--out", url, "--executor", "threads:2")
    assert code == 0, err
    assert f"wrote {url}: (20, 20) float32, 1 tile, 262 kB\n" in out
    assert run(*KERNEL, "--out", url, "--resume")[0] == 0
    np.save("new.npy", np.ones((4, 5), "float32"))
    assert run("store", "append", url, "new.npy", "--executor", "threads:2")[:2] == (0, f"{url} is now (24, 24)\n")
    assert "computed 0 tiles again" in run("store", "repair", url)[1]
    assert run(*KERNEL, "--out", url, "--force")[0] == 0
    assert run("spectrum", url, "--executor", "threads:2")[0] in (0, 1)


def test_workers_need_a_store(run: Run) -> None:
    assert run(*KERNEL, "--out", "K.npy")[0] == 0
    assert run(*KERNEL, "--out", "K.zarr")[0] == 0
    for args, words in (
        (("spectrum", "K.npy", "--executor", "threads:2"), "--executor is for stores: name one as KERNEL_FILE"),
        (("spectrum", "--dask", "local:2"), "--dask is for stores: name one as KERNEL_FILE"),
        (("spectrum", "K.zarr", "--executor", "threads"), "processes:NUMBER or threads:NUMBER"),
        (("predict", "--executor", "threads:2"), "--executor is for stores: name one with --store"),
        (("store", "verify", "K.zarr", "--executor", "threads:2"), "are for --repair"),
        (("store", "repair", "K.zarr", "--executor", "threads:2", "--dask", "local:2"), "give one"),
    ):
        code, _, err = run(*args)
        assert code == 2
        assert words in err


@pytest.mark.slow
def test_processes_on_stores(run: Run) -> None:
    """What they say is what is said without them."""
    workers = ("--executor", "processes:2")
    kernel = (*KERNEL[:-3], "torch", *RANDOM)
    assert run(*kernel, "--out", "K.zarr")[0] == 0
    shutil.copytree("K.zarr", "L.zarr")
    for lanczos in ((), ("--dense-limit", 0, "--k", 3, "--seed", 5)):
        assert run("spectrum", "K.zarr", *lanczos, *workers)[:2] == run("spectrum", "K.zarr", *lanczos)[:2]
    np.save("new.npy", np.ones((4, 5), "float32"))
    assert run("store", "append", "K.zarr", "new.npy", *workers)[:2] == (0, "K.zarr is now (24, 24)\n")
    assert run("store", "append", "L.zarr", "new.npy")[0] == 0
    tile = Path("K.zarr/kernel/c/0/0")
    assert tile.read_bytes() == Path("L.zarr/kernel/c/0/0").read_bytes()
    tile.unlink()
    for command in (("store", "repair", "K.zarr"), ("store", "verify", "K.zarr", "--repair")):
        code, out, err = run(*command, *workers)
        assert code == 0, err
        assert f"computed {'1 tile' if command[1] == 'repair' else '0 tiles'} again" in out
    runs = [one["executor"] for one in ub.KernelStore("K.zarr").manifest["actual"]]
    assert runs == [None, "ProcessPoolExecutor", "ProcessPoolExecutor"]


@pytest.mark.slow
def test_predictions_by_processes(run: Run) -> None:
    generator = np.random.default_rng(3)
    y = np.arange(80) % 3
    np.savez("d.npz", x=(generator.standard_normal((80, 5)) + y[:, None]).astype("float32"), y=y)
    command = ("predict", "--model", "m.safetensors", "--samples", "d.npz:x", "--labels", "d.npz:y", "--outputs", 0)
    said = [
        json.loads(run(*command, "--store", f"{name}.zarr", *workers, "--json", "-")[1])
        for name, workers in (("K", ()), ("L", ("--executor", "processes:2")))
    ]
    assert said[0]["test_error"] == said[1]["test_error"]
    assert ub.KernelStore("L.zarr").manifest["actual"][0]["executor"] == "ProcessPoolExecutor"
    code, _, err = run(*command, "--store", "L.zarr", "--dask", "local:2")
    assert code == 0, err
