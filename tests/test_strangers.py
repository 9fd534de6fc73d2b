"""Somebody else's module at the first try: kernel, spectrum, store, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import strangers
import udlbridge as ub
from helpers import assert_within_budget, udlbridge
from udlbridge import data, errors

NAMES = ("net", "language_model", "unet", "tagger")
FILE = Path(strangers.__file__)


def output_of(name: str) -> str | None:
    return "logits" if name == "language_model" else None


def in_double(name: str) -> tuple[Any, Any]:
    module, x = getattr(strangers, name)().double(), strangers.inputs(name)
    return module, x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


@pytest.mark.costly("language_model")
@pytest.mark.parametrize("name", NAMES)
def test_kernel_spectrum_and_store(name: str, tmp_path: Path) -> None:
    module, x = in_double(name)
    output = output_of(name)
    kernel = ub.ntk(module, x, output=output)
    assert_within_budget(kernel, ub.ntk(module, x, output=output, method="plain"))
    found = ub.spectrum(module, x=x, output=output)
    assert found.verdict in ("PSD", "rounding")
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(kernel), rtol=0, atol=1e-12 * kernel.max())
    store = ub.compute_kernel(module, x, tmp_path / "K.zarr", output=output)
    np.testing.assert_array_equal(np.asarray(store), kernel)
    network = ub.as_network(module, output=output)
    ub.outputs(network, x)
    assert ub.plan(network, 100, calibrate=False).n == 100  # the shapes are those of the samples that came


@pytest.mark.slow
def test_one_of_several_outputs_by_name_by_place_and_by_a_function() -> None:
    module, x = in_double("language_model")
    logits = ub.outputs(module, x, output="logits")
    assert logits.shape == (6, 55)
    np.testing.assert_array_equal(ub.outputs(module, x, output=0), logits)
    last = ub.outputs(module, x, output=lambda found: found.logits[:, -1])
    np.testing.assert_array_equal(last, logits.reshape(6, 5, 11)[:, -1])
    state = ub.jacobian(module, x, output=lambda found: found["hidden_states"][0].sum(1))
    assert state["wte.weight"].any()
    assert not state["ln_f.weight"].any()
    parts = ub.layer_kernels(module, x, output="logits")
    assert_within_budget(sum(parts.values()), ub.ntk(module, x, output="logits"))
    operator = ub.ntk_operator(module, x, output="logits", outputs="sum")
    np.testing.assert_allclose(
        operator @ np.ones(6), ub.ntk(module, x, output="logits", outputs="sum").sum(1), rtol=1e-12
    )
    with pytest.raises(errors.ConversionError, match=r"gives a ModelOutput, with 'logits', 'hidden_states'.*output="):
        ub.ntk(module, x)


def test_output_is_for_modules() -> None:
    model, x = ub.Model([ub.Dense(3, 2)]), np.ones((2, 3), np.float32)
    for call in (ub.outputs, ub.jacobian, ub.input_jacobian, ub.input_hessian, ub.ntk, ub.layer_kernels):
        with pytest.raises(errors.OptionError, match="output='logits' with a Model"):
            call(model, x, output="logits")
    with pytest.raises(errors.OptionError, match="output='logits' with a Model"):
        ub.spectrum(model, x=x, output="logits")
    with pytest.raises(errors.OptionError, match="output= with a kernel"):
        ub.spectrum(np.eye(3), output="logits")
    network = ub.as_network(strangers.tagger())
    with pytest.raises(errors.OptionError, match="say it once, to as_network"):
        ub.ntk(network, strangers.inputs("tagger"), output=0)


@pytest.mark.costly("language_model", "tagger", "unet")
@pytest.mark.parametrize("name", NAMES)
def test_at_the_command_line(name: str, tmp_path: Path) -> None:
    module, x = getattr(strangers, name)(), strangers.inputs(name)
    file = tmp_path / ("x.npz" if isinstance(x, dict) else "x.npy")
    np.savez(file, **x) if isinstance(x, dict) else np.save(file, x)
    words = ["--model", f"{FILE}:{name}", "--samples", file]
    words += ["--output", "logits"] if output_of(name) else []
    for target in ("k.npy", "k.zarr"):
        done = udlbridge("kernel", *words, "--n", 6, "--out", tmp_path / target)
        assert done.returncode == 0, done.stderr
    expected = ub.ntk(module, x, output=output_of(name))
    np.testing.assert_array_equal(np.load(tmp_path / "k.npy"), expected)
    np.testing.assert_array_equal(np.asarray(ub.KernelStore(tmp_path / "k.zarr")), expected)
    assert udlbridge("spectrum", *words, "--n", 6).returncode == 0
    assert udlbridge("spectrum", tmp_path / "k.zarr").returncode == 0
    if name == "tagger":
        assert udlbridge("kernel", *words, "--n", 1000, "--plan").returncode == 0
    assert udlbridge("kernel", *words, "--n", 6, "--out", tmp_path / "k.zarr", "--resume").returncode == 0


def test_a_store_of_a_module_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDLBRIDGE_DATA", str(tmp_path))
    x, target = strangers.inputs("tagger", 8), tmp_path / "k.zarr"
    np.save(tmp_path / "x.npy", x[:5])
    np.save(tmp_path / "more.npy", x[5:])
    model = ["--model", "strangers:tagger"]  # package.module:function
    done = udlbridge("kernel", *model, "--samples", tmp_path / "x.npy", "--out", target)
    assert done.returncode == 0, done.stderr
    assert udlbridge("store", "verify", target).returncode == 0
    assert udlbridge("store", "verify", target, *model).returncode == 0
    done = udlbridge("store", "verify", target, "--model", f"{FILE}:unet")
    assert done.returncode == 2
    assert "other network" in done.stderr
    done = udlbridge("store", "append", target, tmp_path / "more.npy")
    assert done.returncode == 2
    assert "--model file.py:function" in done.stderr
    assert udlbridge("store", "append", target, tmp_path / "more.npy", *model).returncode == 0
    assert_within_budget(np.asarray(ub.KernelStore(target)), ub.ntk(strangers.tagger(), x))
    assert udlbridge("store", "verify", target, "--repair", *model).returncode == 0


def test_random_tokens_are_tokens_of_the_table(tmp_path: Path) -> None:
    target = tmp_path / "k.npy"
    done = udlbridge("kernel", "--model", f"{FILE}:tagger", "--shape", 5, "--n", 6, "--out", target)
    assert done.returncode == 0, done.stderr
    assert np.linalg.matrix_rank(np.load(target)) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "3ls", "--output", "logits"], "--output logits with a Model"),
        (["--model", f"{FILE}:tagger"], "a module does not say what shape a sample has"),
        (["--model", f"{FILE}:language_model", "--shape", "5"], "--output logits"),
        (["--model", f"{FILE}:unet", "--samples", FILE], ".npy, .npz, .csv, .parquet, .safetensors"),
    ],
)
def test_what_is_refused_at_the_command_line(words: list[Any], said: str, tmp_path: Path) -> None:
    done = udlbridge("kernel", *words, "--n", 3, "--out", tmp_path / "k.npy")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("name", ["tagger", "language_model"])
def test_predict_without_samples_is_for_networks_that_take_images(name: str) -> None:
    words = ["--output", "logits"] if name == "language_model" else []
    done = udlbridge("predict", "--model", f"{FILE}:{name}", *words)
    assert done.returncode == 2
    assert "MNIST's images for a network that takes none" in done.stderr
    assert "--samples FILE --labels FILE" in done.stderr


@pytest.mark.parametrize("function", ["flat", "image"])
def test_predict_gives_images_to_a_module_as_it_takes_them(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n"
        "def flat():\n    return nn.Linear(784, 2)\n\n"
        "def image():\n    return nn.Sequential(nn.Conv2d(1, 2, 5, stride=4), nn.Flatten(), nn.Linear(72, 2))\n"
    )
    images = data.mnist("train", n=25)  # those of the test split are not shipped
    monkeypatch.setattr(data, "mnist", lambda split, n, **_: tuple(part[:n] for part in images))
    figures = tmp_path / "found.json"
    words = ["--train", 20, "--test", 5, "--quiet", "--json", figures]
    done = udlbridge("predict", "--model", f"{tmp_path}/mine.py:{function}", *words)
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(figures.read_text())["test_error"] <= 1


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "def make():\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))\n\n"
        "def tokens():\n    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))\n"
    )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net.py:make", "--shape", "5"), "a linear layer takes 4 numbers and gets 5"),
        (("net.py:tokens", "--shape", "4"), "a linear layer takes 20 numbers and gets 16"),
        (("net.py:make", "--samples", "narrow.npy"), "a linear layer takes 4 numbers and gets 3"),
        (("net.py:make", "--samples", "narrow.npy", "--cast"), "a linear layer takes 4 numbers and gets 3"),
        (("net.py:make", "--samples", "int.npy"), "int.npy has dtype int64, the network takes float32"),
        (("net.py:make", "--samples", "int.npy"), "add --cast, which converts the samples"),
        (("net.py:make", "--samples", "double.npz"), "add --cast, which converts the samples"),
        (("net.py:make", "--samples", "two.npz"), "name the one that is meant, as two.npz:a"),
    ],
)
def test_what_is_wrong_with_samples_for_a_module(words: tuple[str, ...], said: str) -> None:
    np.save("int.npy", np.arange(12).reshape(3, 4))
    np.save("narrow.npy", np.arange(12).reshape(4, 3))
    np.savez("double.npz", input=np.ones((3, 4)))
    np.savez("two.npz", a=np.ones((3, 4), np.float32), b=np.ones((3, 4), np.float32))
    done = udlbridge("kernel", "--model", *words, "--out", "k.npy")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Long" not in done.stderr


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.py", "make, tokens. What to do: name it: net.py:make"),
        ("net.py:mak", "net.py has no function 'mak'. Allowed: make, tokens. What to do: choose one of them, perhaps"),
        (
            "layers.json",
            "layers.json ends in '.json'. Allowed: .safetensors, .npz, .pt, .pth. What to do: it",
        ),
        ("net.foo", "net.foo ends in '.foo'. Allowed: .safetensors, .npz"),
        ("whole.pt", "whole.pt holds a torch.nn.modules.linear.Linear"),
    ],
)
def test_networks_that_are_named_wrongly(name: str, said: str) -> None:
    import torch

    ub.Model([ub.Dense(4, 3)]).save("layers.json")
    Path("net.foo").touch()
    torch.save(torch.nn.Linear(4, 3), "whole.pt")
    done = udlbridge("kernel", "--model", name, "--samples", "random", "--out", "k.npy")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


@pytest.mark.usefixtures("small")
def test_integers_are_converted_for_a_module_and_tokens_are_not() -> None:
    x = np.arange(12).reshape(3, 4)
    np.save("int.npy", x)
    np.savez("one.npz", a=x.astype(np.float32))
    np.savez("named.npz", input=x.astype(np.float64))
    for name, more in (("int.npy", ["--cast"]), ("one.npz", []), ("named.npz", ["--cast"])):
        done = udlbridge("kernel", "--model", "net.py:make", "--samples", name, *more, "--out", "k.npy", "--force")
        assert done.returncode == 0, done.stderr
        assert np.load("k.npy").shape == (3, 3)
    np.save("tokens.npy", np.arange(10).reshape(2, 5) % 9)
    for more in ([], ["--cast"]):
        words = ("--model", "net.py:tokens", "--samples", "tokens.npy", *more)
        done = udlbridge("kernel", *words, "--out", "k.npy", "--force")
        assert done.returncode == 0, done.stderr


def test_a_function_finds_what_lies_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("import torch\n\nclass Net(torch.nn.Linear):\n    pass\n")
    (tmp_path / "mine.py").write_text("from beside_it import Net\n\ndef net():\n    return Net(3, 2)\n")
    target = tmp_path / "k.npy"
    done = udlbridge("kernel", "--model", f"{tmp_path}/mine.py:net", "--shape", 3, "--n", 4, "--out", target)
    assert done.returncode == 0, done.stderr


def test_samples_in_the_second_place_of_spectrum_are_told_where_they_belong() -> None:
    with pytest.raises(errors.OptionError, match=r"array in the place of k.*spectrum\(model, x=samples\)"):
        ub.spectrum(nn.Linear(3, 2), np.ones((4, 3), np.float32))  # type: ignore[arg-type]
