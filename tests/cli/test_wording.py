"""What is said in terms of Python, as a user of the command line reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from helpers import udlbridge
from udlbridge.cli.wording import OPTIONS, in_shell
from udlbridge.errors import OptionError


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ('ask for outputs="trace", or outputs=[2, 0]', "ask for --outputs trace, or --outputs 2,0"),
        ("as sample_shape=(1, 28, 28)", "as --shape 1,28,28"),
        ("name it with dtype=.", "name it with --dtype."),
        ("a smaller memory=, or fewer", "a smaller --memory, or fewer"),
        ("add --resume (resume=True) to go on, or --force (overwrite=True)", "add --resume to go on, or --force"),
        (
            "as ub.as_network(module, output='logits') or output=0",
            "as ub.as_network(module, output='logits') or --output 0",
        ),
        ("ub.ntk(module, x, backend='torch')", "ub.ntk(module, x, backend='torch')"),
        ("output=lambda y: y['a']", "--output lambda y: y['a']"),
        ("my_outputs=3 and K=3.npy", "my_outputs=3 and K=3.npy"),
        ("(x2=) has none", "(--samples2) has none"),
    ],
)
def test_arguments_are_said_as_options(python: str, shell: str) -> None:
    assert in_shell(python) == shell


def test_every_option_that_is_named_is_one() -> None:
    from importlib import import_module

    from udlbridge.cli import COMMANDS

    commands = [import_module(name).command for name in COMMANDS.values()]
    commands += [sub for command in commands for sub in getattr(command, "commands", {}).values()]
    known = {name for command in commands for option in command.params for name in option.opts}
    assert set(OPTIONS.values()) <= known


def test_an_error_says_what_to_do_in_python_and_in_a_shell() -> None:
    error = OptionError("it is wrong", allowed="another", remedy="x[None]", shell="write the file anew")
    assert str(error) == "it is wrong. Allowed: another. What to do: x[None]."
    assert error.shell == "write the file anew"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((5, 4), "x.npy has shape (5, 4), which is not square: are these samples?"),
        ((5,), "samples go with a network: --model NETWORK --samples x.npy"),
        ((5, 1, 2, 2), "--samples x.npy"),
        ((5, 5, 3), "compute it with --outputs trace, or of one output"),
    ],
)
def test_a_spectrum_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones(shape))
    done = udlbridge("spectrum", "x.npy")
    assert done.returncode == 2
    assert words in done.stderr
    assert "[..." not in done.stderr
    with pytest.raises(ub.UDLBridgeError) as raised:
        ub.spectrum(np.ones(shape))
    assert "--" not in str(raised.value)


def test_a_store_that_is_there_and_samples_without_an_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ub.Model([ub.Dense(4, 2)]).save("m.safetensors")
    np.save("x.npy", np.ones(4, np.float32))
    command = ("kernel", "--model", "m.safetensors", "--backend", "reference", "--samples")
    done = udlbridge(*command, "x.npy", "--out", "K.npy")
    assert (done.returncode, "[None]" in done.stderr, "(1, *sample)" in done.stderr) == (2, False, True)
    assert udlbridge(*command, "random", "--n", 3, "--out", "K.zarr", "--quiet").returncode == 0
    done = udlbridge(*command, "random", "--n", 3, "--out", "K.zarr", "--quiet")
    assert "add --resume to continue it, or --force to compute it anew" in done.stderr


@pytest.mark.parametrize(
    ("command", "near"),
    [
        (("align", "--model", "x"), ()),
        (("spectrum", "--lr", "1"), ()),
        (("kernel", "--batch", "1"), ()),
        (("kernel", "--ouputs", "0"), ("--outputs",)),
        (("check", "--sample", "x.npy"), ("--samples",)),
        (("kernel", "--back", "x"), ("--backend",)),
    ],
)
def test_options_that_are_not_near_are_not_suggested(command: tuple[str, ...], near: tuple[str, ...]) -> None:
    done = udlbridge(*command)
    assert done.returncode == 2
    assert ("Did you mean" in done.stderr) is bool(near)
    assert all(option in done.stderr for option in near)
