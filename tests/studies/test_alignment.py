"""The alignment study, on the few images that need no download: what it measures, prints, writes and draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import udlbridge as ub
from udlbridge.cli import group
from udlbridge.errors import DTypeError, InputError, OptionError, ShapeError
from udlbridge.studies.alignment_table import PRINTED
from udlbridge.training.trainer import batch_order

Labelled = tuple[np.ndarray, np.ndarray]


def halves(n: int = 160, dtype: str = "float32", digits: tuple[int, ...] = (8, 9)) -> tuple[Labelled, Labelled]:
    x, y = ub.data.mnist("train", n=n, digits=digits, dtype=dtype)
    cut = n * 3 // 4
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def test_regular_moves_its_features_more_than_slow(backend: str) -> None:
    study = ub.study_alignment(*halves(), backends=[backend], width=64, epochs=4, batch_size=10, init="glorot")
    regular, slow = (study.table(backend, variant) for variant in ("regular", "slow"))
    assert [row["epoch"] for row in regular] == [0, 1, 2, 3, 4]
    assert regular[0] == slow[0]
    for quantity in ("feature_alignment", "ntk_change"):
        moved = [rows[-1][quantity] - rows[0][quantity] for rows in (regular, slow)]
        assert moved[0] > 2 * moved[1] > 0
    assert regular[-1]["test_error"] < 0.2
    run = study.runs[backend, "slow"]
    assert run.plan["rates"] == {"0.weight": 0.001, "0.bias": 0.001, "1.weight": 0.01, "1.bias": 0.01}


def test_what_is_measured_is_what_is_said(backend: str) -> None:
    (x, y), (x_test, y_test) = halves()
    study = ub.study_alignment((x, y), (x_test, y_test), backends=[backend], width=16, epochs=2, batch_size=50)
    signs = ub.label_kernel(np.where(y_test == 9, 1, -1))
    for variant in ("regular", "slow"):
        model = study.runs[backend, variant].model
        last = study.table(backend, variant)[-1]
        f = ub.outputs(model, x_test, backend="reference")
        assert last["test_error"] == pytest.approx(np.mean((f[:, 1] > f[:, 0]) != (y_test == 9)))
        phi = ub.feature_kernel(model, x_test, backend="reference")
        assert last["feature_alignment"] == pytest.approx(ub.alignment(phi, signs), rel=1e-5)
        kernel = ub.ntk(model, x_test, backend="reference")
        assert last["ntk_alignment"] == pytest.approx(ub.alignment(kernel, signs), rel=1e-5)


def test_the_weights_begin_as_those_of_torch_or_of_glorot() -> None:
    torch = pytest.importorskip("torch")
    study = ub.study_alignment(*halves(40), backends=["reference"], width=9, epochs=0, seed=4)
    torch.manual_seed(4)
    layers = [torch.nn.Linear(784, 9), torch.nn.Linear(9, 2)]  # in the order in which the notebook makes them
    for variant in ("regular", "slow"):
        params = study.runs["reference", variant].model.params
        for value, expected in zip(params.values(), (p for layer in layers for p in layer.parameters()), strict=True):
            np.testing.assert_array_equal(value, expected.detach().numpy())
    study = ub.study_alignment(*halves(40), backends=["reference"], width=9, epochs=0, seed=4, init="glorot")
    assert study.runs["reference", "slow"].model == ub.models.hidden_relu(9, seed=4)
    with pytest.raises(OptionError, match="init='he'"):
        ub.study_alignment(*halves(40), backends=["reference"], init="he")


def test_the_state_of_the_notebook_is_that_after_one_batch(backend: str) -> None:
    learn, test = halves()
    study = ub.study_alignment(learn, test, backends=[backend], width=16, epochs=6, batch_size=20, batches=1, seed=3)
    start = ub.init.torch_default(ub.models.hidden_relu(16), seed=3)
    first = batch_order(len(learn[0]), 3, 0)[:20]
    labels = (learn[1] == 9).astype(int)
    loss, gradient = ub.loss_gradient(start, learn[0][first], labels[first], backend="reference")
    for variant, hidden in (("regular", 0.01), ("slow", 0.001)):
        run = study.runs[backend, variant]
        assert run.losses == pytest.approx([loss], rel=1e-5)
        for name, value in start.params.items():
            rate = hidden if name.startswith("0.") else 0.01
            np.testing.assert_allclose(run.model.params[name], value - rate * gradient[name], rtol=0, atol=1e-6)
        rows = study.table(backend, variant)
        assert [row["epoch"] for row in rows] == [0, 1]
        for row, model in zip(rows, (start, run.model), strict=True):
            # The errors are over all images, of which the network has seen 20.
            f = ub.outputs(model, learn[0], backend="reference")
            assert row["train_error"] == pytest.approx(np.mean(f.argmax(1) != labels))
    whole = ub.study_alignment(learn, test, backends=[backend], width=16, epochs=1, batch_size=20, batches=6, seed=3)
    full = ub.study_alignment(learn, test, backends=[backend], width=16, epochs=1, batch_size=20, seed=3)
    assert whole.runs[backend, "slow"].model == full.runs[backend, "slow"].model
    assert whole.table(backend, "regular") == full.table(backend, "regular")
    with pytest.raises(OptionError, match="batches=7"):
        ub.study_alignment(learn, test, backends=[backend], batch_size=20, batches=7)


def test_without_an_engine_the_command_compares_all_that_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def engines(choice: str) -> tuple[list[str], dict[str, str]]:
        asked.append(choice)
        return ["reference"], {}

    monkeypatch.setattr("udlbridge.cli.align.engines", engines)
    words = ["align", "--n", "40", "--width", "4", "--batches", "1", "--batch-size", "10", "--init", "glorot"]
    done = CliRunner().invoke(group, words, catch_exceptions=False)
    assert asked == ["all"]
    assert "    1 " in done.output
    assert "    2 " not in done.output


def test_engines_agree_and_their_drift_is_reported(backend: str) -> None:
    other = "torch" if backend == "reference" else "reference"
    study = ub.study_alignment(*halves(dtype="float64"), backends=[backend, other], width=32, epochs=2, batch_size=40)
    drifts = study.drift()
    assert [(d.variant, d.first, d.second) for d in drifts] == [(v, backend, other) for v in ("regular", "slow")]
    for d in drifts:
        assert max(d.losses, d.weights) < 1e-12
        assert d.alignments < 1e-10
        line = f"{d.first} and {d.second}: losses {d.losses:.1e}, weights {d.weights:.1e}"
        assert line in str(study)
    broken = study.runs[other, "slow"]
    object.__setattr__(broken, "losses", broken.losses * 1.5)
    assert study.drift()[1].losses == pytest.approx(0.5)


def test_more_than_two_digits() -> None:
    study = ub.study_alignment(
        *halves(200, digits=(1, 4, 7)), backends=["reference"], width=32, epochs=2, batch_size=10, init="glorot"
    )
    assert study.digits == (1, 4, 7)
    assert study.table("reference", "regular")[-1]["test_error"] < 0.3


def test_one_digit_is_refused() -> None:
    learn, test = halves()
    only = learn[1] == 8
    with pytest.raises(InputError, match="all training images show the digit 8"):
        ub.study_alignment((learn[0][only], learn[1][only]), test, backends=["reference"])
    with pytest.raises(InputError, match="test images of the digit 7"):
        ub.study_alignment(learn, (test[0], np.where(test[1] == 9, 7, test[1])), backends=["reference"])
    with pytest.raises(OptionError, match="no engine"):
        ub.study_alignment(learn, test, backends=[])


@pytest.mark.parametrize("which", ["training", "test"])
def test_images_that_cannot_be_studied(which: str) -> None:
    data = dict(zip(("training", "test"), halves(), strict=True))
    x, y = data[which]
    for bad, error, words in (
        ((x[:0], y[:0]), InputError, f"no {which} images"),
        ((x[y == 8], y[y == 8]), InputError, f"all {which} images show the digit 8"),
        ((x[:1], y[:1]), InputError, f"all {which} images show the digit"),
        ((x, y[1:]), ShapeError, "one whole number for each image"),
        ((x, np.eye(10)[y]), ShapeError, "one whole number for each image"),
        ((x, y + 0.5), ShapeError, "float64"),
        ((x.astype(np.float16), y), DTypeError, "float16"),
        ((np.where(x > 0.9, np.nan, x), y), InputError, f"the array of {which} images is nan"),
    ):
        with pytest.raises(error, match=words):
            ub.study_alignment(*(data | {which: bad}).values(), backends=["reference"], width=4)


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"batch_size": 0}, OptionError, "batch_size=0"),
        ({"seed": -1}, OptionError, "seed=-1"),
        ({"epochs": 1.5}, OptionError, "epochs=1.5"),
        ({"width": 0}, OptionError, "width=0"),
        ({"model": ub.models.hidden_relu(8, 5)}, OptionError, "5 outputs for images of 2 digits"),
        ({"model": ub.models.hidden_relu(8, 1)}, OptionError, "1 output for images of 2 digits"),
        ({"model": ub.Model([ub.Dense(784, 2)])}, OptionError, "a single layer"),
        ({"model": ub.Model([ub.Dense(9, 3), ub.Dense(3, 2)])}, ShapeError, "784"),
        ({"model": ub.models.hidden_relu(8, dtype="float64")}, DTypeError, "float64"),
        ({"model": "hidden_relu"}, OptionError, "a str in the place of the model"),
    ],
)
def test_settings_that_are_refused_before_training(
    setting: dict[str, object], error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise AssertionError("trained for nothing")

    monkeypatch.setattr("udlbridge.studies.alignment.train", train)
    with pytest.raises(error, match=words):
        ub.study_alignment(*halves(), backends=["reference"], **setting)


def test_the_network_that_is_named_is_the_one_that_learned() -> None:
    from udlbridge.plots.training import study_figure

    deep = ub.Model([ub.Dense(784, 9, "tanh"), ub.Dense(9, 7, "relu"), ub.Dense(7, 2)], seed=1)
    for model, words, width in (
        (ub.models.hidden_relu(33), "784-33-2 ReLU", 33),
        (deep, "784-9-7-2 tanh ReLU", 7),
    ):
        study = ub.study_alignment(*halves(40), backends=["reference"], epochs=1, model=model)
        assert (study.architecture, study.width) == (words, width)
        assert f"10 to test; {words}; " in str(study)
        assert (study.to_dict()["architecture"], study.to_dict()["width"]) == (words, width)
        assert words in study_figure(study).get_suptitle()


def test_images_that_are_not_flat() -> None:
    (x, y), (x_test, y_test) = halves(40)
    model = ub.Model([ub.Conv2d(1, 2, 5, "relu", stride=4), ub.Flatten(), ub.Dense(72, 2)])
    study = ub.study_alignment(
        (x.reshape(-1, 1, 28, 28), y),
        (x_test.reshape(-1, 1, 28, 28), y_test),
        backends=["reference"],
        epochs=1,
        model=model,
    )
    assert (study.architecture, study.width) == ("1x28x28-2x6x6-72-2 ReLU", 72)


def test_the_command_looks_at_what_it_writes_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("computed for nothing")

    monkeypatch.setattr("udlbridge.cli.align.engines", nothing)
    file = tmp_path / "file"
    file.write_text("")
    for words, message in (
        (["--json", str(tmp_path / "file" / "x.json")], "cannot be written"),
        (["--json", str(tmp_path)], "cannot be written"),
        (["--plot", str(file)], f"{file} is a file, not a folder"),
        (["--plot", str(file / "deeper" / "still")], f"{file} is a file, not a folder"),
    ):
        result = CliRunner().invoke(group, ["align", "--n", "80", *words], standalone_mode=False)
        assert isinstance(result.exception, OptionError), result
        assert message in str(result.exception)
    for words in (["--batch-size", "0"], ["--seed", "-1"], ["--epochs", "-1"], ["--width", "0"]):
        assert CliRunner().invoke(group, ["align", *words]).exit_code == 2


def test_a_named_engine_is_not_installed_against_the_users_will(monkeypatch: pytest.MonkeyPatch) -> None:
    from udlbridge import backends
    from udlbridge.backends.engine import Availability
    from udlbridge.backends.julia import runtime
    from udlbridge.errors import JuliaUnavailable

    missing = Availability(False, "Julia is not set up", "udlbridge julia install", installable=True)
    monkeypatch.setattr(runtime, "availability", lambda: missing)
    built: list[str] = []
    monkeypatch.setattr(backends, "_started", built.append)
    words = ["align", "--n", "8", "--backend", "reference,julia"]
    result = CliRunner().invoke(group, words, standalone_mode=False)
    assert isinstance(result.exception, JuliaUnavailable)
    assert "julia" not in built


def test_the_command_prints_writes_and_draws(backend: str, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    words = ["align", "--n", "120", "--width", "20", "--epochs", "2", "--batch-size", "30", "--backend", backend]
    done = CliRunner().invoke(group, [*words, "--json", str(target), "--plot", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "MNIST 8 against 9: 90 samples to learn, 30 to test; 784-20-2 ReLU" in done.output
    found = json.loads(target.read_text())
    assert [(run["backend"], run["model"]) for run in found["runs"]] == [(backend, "regular"), (backend, "slow")]
    for run in found["runs"]:
        assert len(run["losses"]) == 6
        for row in run["epochs"]:
            assert f"{row['feature_alignment']:.4f}" in done.output
            assert f"{row['test_error']:.2%}" in done.output
    picture = (tmp_path / "alignment.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 20_000


def test_the_command_puts_the_notebook_beside_the_study(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures of alignment -->\n<!-- end of figures -->\nafter", encoding="utf-8")
    words = ["align", "--n", "120", "--width", "20", "--epochs", "2", "--batch-size", "30", "--backend", "reference"]
    done = CliRunner().invoke(group, [*words, "--write", str(page)], catch_exceptions=False)
    assert done.exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- figures of alignment -->\n| figure | notebook | reference |")
    assert text.endswith("<!-- end of figures -->\nafter")
    learn, test = halves(120)
    settings = {"backends": ["reference"], "width": 20, "batch_size": 30}
    first = ub.study_alignment(learn, test, batches=1, **settings).table("reference", "slow")[-1]
    last = ub.study_alignment(learn, test, epochs=2, **settings).table("reference", "regular")[-1]
    assert f"| one batch, slow: test error (%) | 50.78 | {100 * first['test_error']:.2f} |" in text
    assert f"| epoch 2, regular: change of the NTK |  | {last['ntk_change']:.4f} |" in text


def test_the_index_of_the_examples_shows_what_the_notebook_prints() -> None:
    index = (Path(__file__).parents[2] / "examples" / "README.md").read_text(encoding="utf-8")
    table = index.split("<!-- figures of alignment -->")[1].split("<!-- end of figures -->")[0]
    for variant, printed in PRINTED.items():
        for what, error in zip(("training", "test"), printed, strict=True):
            assert f"| one batch, {variant}: {what} error (%) | {error:.2f} |" in table


@pytest.mark.parametrize("digits", ["8", "8,8", "8,x", "", "-1,2"])
def test_the_command_refuses_digits(digits: str) -> None:
    with pytest.raises(OptionError, match="at least two different digits"):
        CliRunner().invoke(group, ["align", "--digits", digits], catch_exceptions=False, standalone_mode=False)


def test_the_figure_shows_every_model_and_engine() -> None:
    from udlbridge.plots.training import study_figure

    study = ub.study_alignment(*halves(), backends=["torch", "reference"], width=8, epochs=2)
    figure = study_figure(study)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {f"{v}, {b}" for v in ("regular", "slow") for b in ("torch", "reference")}
    shown = ("test_error", "feature_alignment", "ntk_alignment", "train_error", "ntk_change")
    for ax, quantity in zip(figure.axes, shown, strict=False):
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        factor = 100 if quantity.endswith("_error") else 1
        for backend, variant in study.runs:
            rows = study.table(backend, variant)
            np.testing.assert_array_equal(
                drawn[f"{variant}, {backend}"], [factor * row[quantity] for row in rows], err_msg=quantity
            )
            if factor == 100:
                assert [row["train_error"] for row in rows] != [row["test_error"] for row in rows]
    titles = [ax.get_title().split(",")[0] for ax in figure.axes[:5]]
    assert titles == ["test error", *(f"alignment of {what} and labels" for what in ("features", "NTK")),
                      "training error", "change of the NTK"]  # fmt: skip
    assert [figure.axes[index].get_ylabel() for index in (0, 3)] == ["error (%)"] * 2
    figure.draw_without_rendering()
    for index in (1, 2, 4):  # a quantity that hardly changes has few labels, which differ in their last digit alone
        low, high = figure.axes[index].get_ylim()
        assert sum(low <= tick <= high for tick in figure.axes[index].get_yticks()) <= 5


@pytest.mark.slow
def test_errors_of_zero_are_seen() -> None:
    """Which epochs have none is the point of the picture, and a logarithm has no place for them."""
    from udlbridge.plots.training import study_figure

    learn, test = halves(120, digits=(0, 1))
    study = ub.study_alignment(learn, test, backends=["reference"], width=50, epochs=8, batch_size=5)
    figure = study_figure(study)
    figure.draw_without_rendering()
    for ax, quantity in ((figure.axes[0], "test_error"), (figure.axes[3], "train_error")):
        errors = [100 * row[quantity] for variant in ("regular", "slow") for row in study.table("reference", variant)]
        assert 0 in errors
        assert 0 in [tick for tick, text in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True) if text.get_text()]
        below, above = ax.get_ylim()
        heights = ax.transData.transform([(0, error) for error in (below, *sorted(errors), above)])[:, 1]
        assert np.isfinite(heights).all()
        assert heights[0] < heights[1]
        assert heights[-2] < heights[-1]
        # Each factor of two among the others keeps its place on a logarithmic scale.
        large = max(errors)
        steps = np.diff(ax.transData.transform([(0, large / 4), (0, large / 2), (0, large)])[:, 1])
        assert steps[0] == pytest.approx(steps[1], rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_study_without_epochs_is_drawn() -> None:
    from udlbridge.plots.training import study_figure

    figure = study_figure(ub.study_alignment(*halves(40), backends=["reference"], width=8, epochs=0))
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["regular, reference", "slow, reference"]


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "examples" / "alignment.py"
    assert len(path.read_text().splitlines()) < 60
    command = [sys.executable, str(path), "--n", "120", "--backends", "torch"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "MNIST 8 against 9: 90 samples to learn, 30 to test" in done.stdout
    assert "layer 0: alignment with the labels 0." in done.stdout
    assert (tmp_path / "alignment.png").stat().st_size > 20_000


def test_a_network_that_gives_probabilities_is_refused() -> None:
    x, digits = np.eye(4, dtype=np.float32), np.array([3, 4, 3, 4])
    model = ub.Model([ub.Dense(4, 3, "relu"), ub.Dense(3, 2), ub.Softmax()])
    with pytest.raises(OptionError, match=r"ends in Softmax.*leave the Softmax out"):
        ub.study_alignment((x, digits), (x, digits), backends=["reference"], model=model)
