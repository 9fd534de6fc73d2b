"""Their own samples and labels at the command line, in files of five kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.shell_completion import ShellComplete
from safetensors.numpy import save_file

import udlbridge as ub
from helpers import Done, udlbridge
from udlbridge.cli import COMMANDS, group

X = np.random.default_rng(0).normal(size=(12, 4))
MODEL = ub.Model([ub.Dense(4, 6, "tanh"), ub.Dense(6, 3)], dtype="float64")
WORDS = np.array(["setosa", "virginica", "versicolor"] * 4)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.save("m.safetensors")
    np.save("x.npy", X)
    np.savez("x.npz", x=X, y=np.arange(12) % 3)
    np.savez("one.npz", x=X)
    save_file({"x": X, "other": X[:3]}, "x.safetensors")
    lines = [",".join([*map(repr, map(float, row)), word]) for row, word in zip(X, WORDS, strict=True)]
    Path("flowers.csv").write_text("\n".join(["a,b,c,d,kind", *lines]))
    Path("bare.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))


def run(*args: object) -> Done:
    return udlbridge(*args, "--model", "m.safetensors", "--backend", "reference")


@pytest.mark.parametrize("name", ["x.npy", "x.npz:x", "one.npz", "x.safetensors:x", "bare.csv"])
def test_files_of_samples(name: str) -> None:
    done = run("kernel", "--samples", name, "--out", "k.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("k.npy"), ub.ntk(MODEL, X, backend="reference"))


def test_a_parquet_file_is_a_table() -> None:
    pandas = pytest.importorskip("pandas", reason='the extra "parquet" is not installed')
    pytest.importorskip("pyarrow", reason='the extra "parquet" is not installed')
    table = pandas.DataFrame(X, columns=list("abcd"))
    table.to_parquet("x.parquet")
    assert run("kernel", "--samples", "x.parquet", "--out", "k.npy").returncode == 0
    np.testing.assert_array_equal(np.load("k.npy"), ub.ntk(MODEL, X, backend="reference"))
    kinds = {"words": WORDS, "categories": pandas.Categorical(WORDS), "numbers": np.arange(12) % 3}
    for name, kind in kinds.items():
        table.assign(kind=kind).to_parquet(f"{name}.parquet", index=False)
        source = ("--samples", f"{name}.parquet", "--labels", f"{name}.parquet:kind")
        done = run("predict", *source, "--json", "-", "--quiet")
        assert done.returncode == 0, done.stderr
        assert (json.loads(done.stdout)["train"], json.loads(done.stdout)["test"]) == (9, 3)
    for words, said in (
        (("words.parquet",), "column 'kind' is no column of numbers"),
        (("words.parquet:kin",), "has no column 'kin'.*kind"),
    ):
        done = run("kernel", "--samples", *words, "--out", "other.npy")
        assert done.returncode == 2
        assert re.search(said, done.stderr), done.stderr
    Path("cut.parquet").write_bytes(Path("x.parquet").read_bytes()[:-20])
    assert "not a readable Parquet file" in run("kernel", "--samples", "cut.parquet", "--out", "other.npy").stderr


def test_a_parquet_file_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")

    def lacking(*_: object, **__: object) -> None:
        raise ImportError("Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'.")

    monkeypatch.setattr(pandas, "read_parquet", lacking)
    Path("x.parquet").write_bytes(b"PAR1")
    done = run("kernel", "--samples", "x.parquet", "--out", "k.npy")
    assert done.returncode == 2
    assert "x.parquet needs pandas and pyarrow" in done.stderr
    assert "pip install 'udlbridge[parquet]'" in done.stderr


def test_a_cross_kernel() -> None:
    done = run("kernel", "--samples", "x.npy", "--samples2", "x.safetensors:other", "--out", "k.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("k.npy"), ub.ntk(MODEL, X, X[:3], backend="reference"))
    done = run("kernel", "--samples", "x.npy", "--samples2", "x.npy", "--out", "k.zarr")
    assert (done.returncode, "--samples2 is for arrays" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--samples", "x.npz"), "name one after a colon, as x.npz:x"),
        (("--samples", "x.npz:z"), "has no array 'z'"),
        (("--samples", "flowers.csv"), "leave it out, as labels are: --labels flowers.csv:kind"),
        (("--samples", "x.npy", "--dtype", "float32"), "add --dtype float64, which converts the network, or --cast"),
        (("--samples", "x.npy", "--n", "13"), "at most the 12 that it has"),
        ((), "no samples for a network that takes (4,), which MNIST's images are not"),
        (("--samples", "absent.npy"), "does not exist"),
        (("--samples", "x.npy:foo"), "x.npy holds one array, which has no name: leave out ':foo'"),
        (("--samples", "flowers.csv", "--labels", "flowers.csv:knd"), "has no column 'knd'. Allowed: a, b, c, d, kind"),
        (("--samples", "flowers.csv", "--labels", "flowers.csv"), "holds 5 columns"),
        (("--samples", "flowers.csv", "--labels", "x.npz:y"), "no classes are needed here"),
        (("--labels", "flowers.csv:kind"), "what is left out of --samples FILE"),
    ],
)
def test_what_is_refused(args: tuple[str, ...], words: str) -> None:
    done = run("kernel", *args, "--out", "k.npy")
    assert done.returncode == 2
    assert words in done.stderr
    assert not Path("k.npy").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("kernel", "--samples", "x.npy", "--shape", "4"), "--shape is of random samples, and --samples x.npy has"),
        (
            ("kernel", "--samples", "x.npy", "--data", "."),
            "--data is the folder of MNIST's images, and --samples x.npy",
        ),
        (
            ("kernel", "--samples", "random", "--data", "."),
            "--data is the folder of MNIST's images, and --samples random",
        ),
        (("check", "--shape", "4", "--data", "."), "--data is the folder of MNIST's images, and --shape draws"),
        (("kernel", "--samples", "x.npy", "--seed", 1), "--seed is of the weights of a network by name and of random"),
        (("kernel", "--plan", "--seed", 1), "--seed is of the weights of a network by name"),
        (("spectrum", "--samples", "random", "--cast"), "--cast converts samples of a file, and none is named"),
        (("predict", "--samples", "x.npz:x", "--labels", "x.npz:y", "--data", "."), "--data is the folder of MNIST's"),
        (("predict", "--samples", "x.npz:x", "--labels", "x.npz:y", "--seed", 0), "--seed is of the weights of a"),
        (("predict", "--cast"), "--cast converts samples of a file"),
    ],
)
def test_options_that_would_change_nothing_are_refused(args: tuple[str, ...], words: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


@pytest.mark.parametrize("option", ["--data", "--cast"])
def test_options_that_the_study_makes_nothing_with_are_refused(option: str) -> None:
    words = ("--samples", "x.npz:x", "--labels", "x.npz:y", "--data", ".") if option == "--data" else ("--cast",)
    done = udlbridge("align", *words)
    assert (done.returncode, f"{option} " in done.stderr, "leave it out" in done.stderr) == (2, True, True)


def test_options_that_change_something_are_not_refused() -> None:
    for words in (
        ("--samples", "random", "--shape", "4", "--seed", 3),
        ("--samples", "random", "--samples2", "x.npy", "--cast", "--dtype", "float32"),
    ):
        assert run("kernel", "--n", 2, *words, "--out", "k.npy", "--force").returncode == 0
    done = udlbridge("spectrum", "--model", "m.safetensors", "--samples", "x.npy", "--seed", 1, "--quiet")
    assert done.returncode == 0, done.stderr


def test_random_samples_of_a_shape_are_random_also_where_mnist_would_do() -> None:
    for name, seed in (("a", 0), ("b", 1)):
        words = ("--shape", 784, "--n", 2, "--model", "net.safetensors", "--seed", seed, "--backend", "reference")
        ub.Model([ub.Dense(784, 2)]).save("net.safetensors")
        done = udlbridge("kernel", *words, "--out", f"{name}.npy")
        assert done.returncode == 0, done.stderr
    assert not np.array_equal(np.load("a.npy"), np.load("b.npy"))


def test_random_samples_of_a_module_are_drawn_from_the_seed() -> None:
    Path("net.py").write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Linear(3, 2)\n"
    )
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        words = ("--model", "net.py:make", "--shape", 3, "--n", 2, "--seed", seed, "--out", f"{name}.npy")
        assert udlbridge("kernel", *words).returncode == 0
    a, b, c = (np.load(f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_samples_are_converted_where_it_is_asked_for() -> None:
    done = run("kernel", "--samples", "x.npy", "--dtype", "float32", "--cast", "--out", "k.npy")
    assert done.returncode == 0, done.stderr
    assert np.load("k.npy").dtype == np.float32


def test_random_samples_are_drawn_from_the_seed() -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("kernel", "--samples", "random", "--n", 3, "--seed", seed, "--out", f"{name}.npy").returncode == 0
    a, b, c = (np.load(f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_seed_is_that_of_a_network_by_name() -> None:
    done = udlbridge("kernel", "--seed", 5, "--n", 3, "--backend", "reference", "--out", "k.npy")
    assert done.returncode == 0, done.stderr
    x = ub.data.mnist("train", n=3)[0]
    np.testing.assert_array_equal(
        np.load("k.npy"), ub.ntk(ub.models.three_layer_sigmoid(seed=5), x, backend="reference")
    )


def test_labels_in_a_column_of_the_same_table() -> None:
    done = run("predict", "--samples", "flowers.csv", "--labels", "flowers.csv:kind", "--json", "-")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert (result["train"], result["test"]) == (9, 3)
    assert result["classes"] == ["setosa", "versicolor", "virginica"]
    done = udlbridge(
        "align", "--samples", "flowers.csv", "--labels", "flowers.csv:kind", "--backend", "reference", "--epochs", 1,
        "--width", 8, "--batch-size", 4, "--quiet", "--json", "-",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digits"] == [0, 1, 2]


ALIGN = ("align", "--backend", "reference", "--epochs", 1, "--width", 8, "--batch-size", 4, "--quiet", "--cast")


def test_alignment_of_their_own_classes_has_their_names() -> None:
    own = (*ALIGN, "--samples", "flowers.csv", "--labels", "flowers.csv:kind")
    done = udlbridge(*own, "--digits", "virginica,setosa", "--json", "a.json", "--plot", "p", "--report", "a.html")
    assert done.returncode == 0, done.stderr
    assert "setosa against virginica: 6 samples to learn, 2 to test" in done.stdout
    assert "MNIST" not in done.stdout + Path("a.html").read_text()
    assert json.loads(Path("a.json").read_text())["names"] == ["setosa", "virginica"]
    for words, said in (
        (("--digits", "8,9"), "--digits 8,9: flowers.csv:kind has no class '8'. Allowed: at least two of setosa"),
        (("--digits", "setosa,virginca"), "perhaps 'virginica'"),
        (("--digits", "setosa"), "at least two of"),
        (("--write", "page.md"), "leave --samples out"),
    ):
        done = udlbridge(*own, *words)
        assert done.returncode == 2
        assert said in done.stderr


def test_the_digits_of_numbers_are_chosen_too() -> None:
    np.save("y.npy", np.array([7.0, 8, 9] * 4))
    done = udlbridge(*ALIGN, "--samples", "x.npy", "--labels", "y.npy", "--digits", "7,9")
    assert done.returncode == 0, done.stderr
    assert "7 against 9: 6 samples" in done.stdout
    np.save("y.npy", np.repeat([7, 8, 9], 4))
    done = udlbridge(*ALIGN, "--samples", "x.npy", "--labels", "y.npy")
    assert done.returncode == 2
    assert "among the last quarter of the samples are 9" in done.stderr
    assert "shuffle the samples" in done.stderr


@pytest.mark.parametrize(
    ("classes", "words", "said"),
    [
        ([3, 3, 3, 3], (), "among the first three quarters of the samples are 0, 1, 2. Allowed: all classes to learn"),
        ([4, 4, 4], (), "among the last quarter of the samples are 2. Allowed: all classes to learn"),
        ([4, 4, 4], ("--train", 8), "among the samples to learn from are 0, 1."),
        ([4, 4, 4], ("--train", 8, "--samples2", "x.npy", "--labels2", "y.npy"), "among the first 8 samples are 0, 1."),
        ([4, 4, 4], ("--test", 1), ""),
        ([9, 3], ("--train", 10, "--test", 2), "among the samples to test on are 1."),
    ],
)
def test_predict_refuses_samples_that_are_sorted_by_class(
    classes: list[int], words: tuple[object, ...], said: str
) -> None:
    np.save("y.npy", np.repeat(np.arange(len(classes)), classes))
    done = run("predict", "--samples", "x.npy", "--labels", "y.npy", *words)
    assert done.returncode == (2 if said else 0), done.stderr
    assert said in done.stderr
    assert not said or "shuffle the samples and their labels" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--labels", "y.npy"), "--labels wants --samples"),
        (("--samples", "x.npy"), "--samples wants --labels"),
        (("--samples", "x.npy", "--labels", "y.npy", "--labels2", "y.npy"), "--labels2 wants --samples2"),
        (("--samples2", "x.npy", "--labels2", "y.npy"), "--samples2 wants --samples"),
        (("--samples", "x.npy", "--labels", "nan.npy"), "nan.npy: label 1 is nan"),
        (("--samples", "x.npy", "--labels", "objects.npy"), "numpy.save(path, y.astype(str))"),
        (("--samples", "x.npy", "--labels", "objects.npz:y"), "numpy.save(path, y.astype(str))"),
        (("--samples", "flowers.csv", "--labels", "flowers.csv:knd"), "choose one of them, perhaps 'kind'"),
        (("--samples", "flowers.csv", "--labels", "flowers.csv"), "name one after a colon, as flowers.csv:kind"),
        (("--samples", "x.npy", "--labels", "y.npy:y"), "y.npy holds one array"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_labels_that_are_refused(words: tuple[str, ...], said: str) -> None:
    np.save("y.npy", np.arange(12) % 3)
    np.save("nan.npy", np.array([0, np.nan, 1.0] * 4))
    np.save("objects.npy", WORDS.astype(object))
    np.savez("objects.npz", y=WORDS.astype(object))
    done = run("predict", *words)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("command", ["kernel", "spectrum", "check"])
def test_a_column_with_labels_is_left_out(command: str) -> None:
    out = ("--out", "k.npy") if command == "kernel" else ()
    words = ("--model", "m.safetensors", "--backend", "torch,reference" if command == "check" else "reference")
    done = udlbridge(command, "--samples", "flowers.csv", "--labels", "flowers.csv:kind", *words, *out)
    assert done.returncode == 0, done.stderr


def test_labels_are_left_out_of_what_is_appended_and_of_a_cross_kernel() -> None:
    own = ("--samples", "flowers.csv", "--labels", "flowers.csv:kind")
    assert run("kernel", *own, "--samples2", "flowers.csv", "--out", "k.npy").returncode == 0
    assert run("kernel", *own, "--out", "k.zarr").returncode == 0
    done = udlbridge("store", "append", "k.zarr", *own)
    assert done.returncode == 0, done.stderr
    assert ub.KernelStore("k.zarr").shape == (24, 24)
    assert run("kernel", "--samples", "x.npz", "--labels", "x.npz:y", "--out", "left.npy").returncode == 0


def test_check_and_spectrum_of_a_file() -> None:
    done = udlbridge("check", "--model", "m.safetensors", "--samples", "x.npy", "--backend", "torch,reference")
    assert done.returncode == 0, done.stderr
    assert "n = 10" in done.stdout
    assert run("spectrum", "--samples", "bare.csv").returncode == 0


def test_samples_are_appended_from_a_table() -> None:
    assert run("kernel", "--samples", "x.npy", "--n", 8, "--out", "k.zarr").returncode == 0
    done = udlbridge("store", "append", "k.zarr", "--samples", "x.safetensors:other", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert ub.KernelStore("k.zarr").shape == (11, 11)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("kernl",), "perhaps 'kernel'"),
        (("kernel", "--model", "lenet", "--out", "k.npy"), "perhaps 'lenet5'"),
        (("practicals", "run", "loses", "--backend", "reference"), "perhaps '02_losses'"),
        (("kernel", "--backend", "torhc", "--out", "k.npy"), "perhaps 'torch'"),
        (("spectrum", "--backend", "torch,reference"), "`udlbridge check` compares several"),
        (("kernel", "--n", "100000", "--plan"), "60,000"),
        (("store", "info", "x.npy"), "it is a file"),
        (("kernel", "--out", "x.npy"), "--force"),
        (("kernel", "--out", "k.npy", "--json", "x.npy"), "--force"),
        (("convert", "m.safetensors", "one.npz"), "--force"),
    ],
)
def test_names_and_files_that_are_nearly_right(args: tuple[str, ...], words: str) -> None:
    done = udlbridge(*args)
    assert done.returncode == 2
    assert words in done.stderr


def test_missing_folders_are_made_for_every_output() -> None:
    done = run("kernel", "--samples", "x.npy", "--out", "new/deep/k.npy", "--json", "other/k.json")
    assert done.returncode == 0, done.stderr
    assert Path("new/deep/k.npy").exists()
    assert Path("other/k.json").exists()
    MODEL.save("models/m.npz")
    assert ub.Model.load("models/m.npz") == MODEL


def test_force_overwrites_every_output() -> None:
    for target in ("k.npy", "k.zarr"):
        args = ("kernel", "--samples", "x.npy", "--out", target)
        assert run(*args).returncode == 0
        assert run(*args).returncode == 2
        done = run(*args, "--force")
        assert done.returncode == 0, done.stderr
    assert udlbridge("convert", "m.safetensors", "one.npz", "--force", "--json", "c.json").returncode == 0
    assert json.loads(Path("c.json").read_text())["parameters"] == MODEL.n_params


def test_a_picture_is_not_overwritten_and_nothing_is_computed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udlbridge.cli.reproduce.engines", lambda *_, **__: pytest.fail("computed for nothing"))
    Path("plots").mkdir()
    Path("plots/method2_spectrum.png").write_text("mine")
    done = udlbridge("reproduce", "--backend", "reference", "--plot", "plots")
    assert done.returncode == 2
    assert "method2_spectrum.png exists" in done.stderr


def test_store_repair_and_the_json_of_verify() -> None:
    assert run("kernel", "--samples", "x.npy", "--out", "k.zarr").returncode == 0
    for words in ("verify", "repair"):
        done = udlbridge("store", words, "k.zarr", "--json", "-")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok"] is True


def test_an_interrupted_command_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("udlbridge.store.computing.compute_kernel", interrupted)
    done = run("kernel", "--samples", "x.npy", "--out", "k.zarr")
    assert done.returncode == 130
    assert "--resume" in done.stderr


@pytest.mark.parametrize(
    ("function", "words", "said"),
    [
        ("store.array_files.ntk", ("kernel", "--samples", "x.npy", "--out", "k.npy"), "and resumes: --out k.zarr"),
        ("analysis.spectra.spectrum", ("spectrum", "--samples", "x.npy"), "`udlbridge kernel --out K.zarr` resumes"),
    ],
)
def test_what_is_not_kept_is_said(
    monkeypatch: pytest.MonkeyPatch, function: str, words: tuple[str, ...], said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"udlbridge.{function}", interrupted)
    done = run(*words)
    assert done.returncode == 130
    assert said in done.stderr


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ("fulll", "perhaps 'full'"),
        ("0,0", "--outputs 0,0 names output 0 twice"),
        ("0,7", "with 3 outputs"),
        ("0-2", "as 0,2"),
        (",", "','"),
    ],
)
def test_outputs_that_are_none(outputs: str, said: str) -> None:
    done = run("kernel", "--samples", "x.npy", "--outputs", outputs, "--out", "k.npy")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(("outputs", "indices"), [("2,0", [2, 0]), ("2, 0", [2, 0]), ("1,", [1])])
def test_some_outputs(outputs: str, indices: list[int]) -> None:
    done = run("kernel", "--samples", "x.npy", "--outputs", outputs, "--out", "some.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("some.npy"), ub.ntk(MODEL, X, outputs=indices, backend="reference"))


def _commands() -> Iterator[tuple[str, ...]]:
    for name in COMMANDS:
        found = group.get_command(click.Context(group), name)
        inside = found.commands if isinstance(found, click.Group) else {}
        yield from ((name, each) for each in inside) if inside else ((name,),)


@pytest.mark.parametrize("words", list(_commands()), ids=" ".join)
def test_every_help_text_has_an_example_and_says_what_values_are(words: tuple[str, ...]) -> None:
    said = udlbridge(*words, "--help").stdout
    assert f"Example: udlbridge {' '.join(words)}" in said
    assert not re.search(r"--[\w-]+ (TEXT|PATH|FILE\.\.\.|INTEGER|FLOAT)\b", said)
    found = group.get_command(click.Context(group), words[0])
    found = found.commands[words[1]] if isinstance(found, click.Group) else found
    assert found is not None
    assert [option.opts for option in found.params if isinstance(option, click.Option) and not option.help] == []


def test_what_is_not_required_is_in_brackets() -> None:
    assert "PATH [FILE[:KEY]]" in udlbridge("store", "append", "--help").stdout


def test_summaries_are_whole() -> None:
    for words in ((), ("store",), ("julia",), ("practicals",)):
        assert "..." not in udlbridge(*words, "--help").stdout.split("Commands:")[1]


@pytest.mark.parametrize(
    ("words", "begun", "completed"),
    [
        (["kernel", "--model"], "len", "lenet5"),
        (["check", "--backend"], "torch,ref", "torch,reference"),
        (["practicals", "run"], "02", "02_losses"),
    ],
)
def test_values_are_completed(words: list[str], begun: str, completed: str) -> None:
    found = ShellComplete(group, {}, "udlbridge", "_UDLBRIDGE_COMPLETE").get_completions(words, begun)
    assert completed in [item.value for item in found]


def test_append_advises_only_options_that_it_has() -> None:
    ub.Model([ub.Dense(4, 3)], dtype="float32").save("narrow.safetensors")
    words = ("--model", "narrow.safetensors", "--backend", "reference", "--out", "w.zarr")
    assert udlbridge("kernel", "--samples", "x.npy", "--cast", *words).returncode == 0
    done = udlbridge("store", "append", "w.zarr", "--samples", "x.npy")
    assert done.returncode == 2
    assert "add --cast, which converts the samples" in done.stderr
    assert "--dtype" not in done.stderr
