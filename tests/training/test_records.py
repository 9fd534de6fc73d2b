"""What a training notes on its way: measurements, error rates, the bar; and what a file must hold to be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.backends.threads import ThreadLimit
from udlbridge.errors import InputError, OptionError, RunFileError, TrainingDiverged
from udlbridge.networks.files import read_safetensors, write_safetensors

X = np.random.default_rng(0).standard_normal((40, 4))
Y = np.arange(40) % 3
TARGET = ub.label_kernel(np.eye(3)[Y[:10]])


def network(outputs: int = 3, activation: str = "tanh") -> ub.Model:
    return ub.Model([ub.Dense(4, 5, activation), ub.Dense(5, outputs)], seed=0, dtype="float64")


def train(**changes: Any) -> ub.TrainingRun:
    settings = {"model": network(), "x": X, "y": Y, "epochs": 2, "batch_size": 10, "backend": "reference", **changes}
    return ub.train(**settings)  # type: ignore[arg-type]


def test_a_measurement_that_is_not_defined_stops_at_its_step_and_keeps_the_run() -> None:
    """Losses and parameters are finite still where the kernel is not; and a dead layer has no alignment."""
    x, narrow = X.astype(np.float32), network(activation="identity").astype("float32")
    probe = ub.Probe(x[:10], every=1, quantities=("ntk_alignment",), target=TARGET)
    settings = {"batch_size": 40, "epochs": 50, "optimizer": ("sgd", {"lr": 30.0})}
    with pytest.raises(TrainingDiverged, match=r"stopped at step \d+ .*callback 'probe'.*K\[.* is inf") as caught:
        train(model=narrow, x=x, loss="mse", callbacks=[probe], **settings)
    assert caught.value.run.epochs == len(caught.value.run.losses) >= 1
    probe = ub.Probe(X[:10], every=1, quantities=("feature_alignment",), target=TARGET)
    dead = network(activation="relu")
    dead = dead.with_params({**dead.params, "0.bias": np.full(5, -100.0)})
    with pytest.raises(TrainingDiverged, match=r"callback 'probe'.*no norm.*lower the learning rate"):
        train(model=dead, callbacks=[probe])


OTHER_PROBES = {
    "samples": {"x": X[20:30]},
    "target": {"target": 2 * TARGET},
    "quantities": {"quantities": ("ntk_alignment", "ntk_change")},
    "layer": {"layer": 1},
    "outputs": {"outputs": 0},
    "every": {"every": 4},
}


@pytest.mark.parametrize("changes", OTHER_PROBES.values(), ids=OTHER_PROBES)
def test_a_run_is_resumed_with_the_same_probes(changes: dict[str, Any]) -> None:
    settings = {"x": X[:10], "every": 2, "quantities": ("ntk_alignment", "feature_alignment"), "target": TARGET}
    run = train(callbacks=[ub.Probe(**settings)])  # type: ignore[arg-type]
    again = train(callbacks=[ub.Probe(**settings)], epochs=3, resume=run)  # type: ignore[arg-type]
    assert again.records["probe"]["step"].tolist() == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(RunFileError, match="callbacks"):
        train(callbacks=[ub.Probe(**{**settings, **changes})], epochs=3, resume=run)  # type: ignore[arg-type]


def test_a_run_is_resumed_with_the_same_validation_data() -> None:
    run = train(validation=(X[:5], Y[:5]))
    train(validation=(X[:5], Y[:5]), epochs=3, resume=run)
    with pytest.raises(RunFileError, match="validation"):
        train(validation=(X[5:10], Y[5:10]), epochs=3, resume=run)


def test_probes_measure_the_layer_and_the_outputs_that_they_name() -> None:
    run = train(
        callbacks=[
            ub.Probe(X[:6], every=8, quantities=("feature_kernel", "ntk"), layer=layer, outputs=outputs, name=name)
            for name, layer, outputs in (("a", 0, 1), ("b", 1, "mean"))
        ]
    )
    for name, layer, outputs in (("a", 0, 1), ("b", 1, "mean")):
        expected = ub.feature_kernel(run.model, X[:6], layer=layer, backend="reference")
        np.testing.assert_allclose(run.records[name]["feature_kernel"][-1], expected, rtol=1e-12)
        expected = ub.ntk(run.model, X[:6], outputs=outputs, backend="reference")
        np.testing.assert_allclose(run.records[name]["ntk"][-1], expected, rtol=1e-12)


class Measuring:
    """A callback of one's own."""

    name, every = "own", 2

    def __init__(self, measure: Callable[[int], dict[str, Any]]) -> None:
        self._measure, self._calls = measure, 0

    def begin(self, start: ub.Model, backend: str) -> Callable[[ub.Model], dict[str, Any]]:
        def measure(model: ub.Model) -> dict[str, Any]:
            self._calls += 1
            return self._measure(self._calls)

        return measure


def test_callbacks_of_ones_own() -> None:
    run = train(callbacks=[Measuring(lambda call: {"calls": float(call)})])
    assert run.records["own"]["calls"].tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(OptionError, match=r"'own' gives .* after step 2, and gave something else before"):
        train(callbacks=[Measuring(lambda call: {"calls": np.zeros(call)})])
    with pytest.raises(OptionError, match="called 'step'"):
        train(callbacks=[Measuring(lambda call: {"step": 1.0})])


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_error_rates_of_one_output_where_the_validation_data_have_one_class(loss: str, low: float) -> None:
    if loss == "binary_cross_entropy" and low < 0:
        pytest.skip("this loss takes 0 and 1 alone")
    y = np.where(Y == 0, 1.0, low)
    for wanted in (1.0, low):
        some = X[y == wanted]
        run = train(model=network(1), y=y, loss=loss, validation=(some, np.full(len(some), wanted)))
        middle = 0.0 if loss == "binary_cross_entropy" or low < 0 else 0.5
        given = np.where(ub.outputs(run.model, some, backend="reference")[:, 0] > middle, 1.0, low)
        assert run.errors[-1].validation == pytest.approx(np.mean(given != wanted))
    # Targets that the training data do not have are no classes.
    run = train(model=network(1), y=y, loss="mse", validation=(X[:2], np.array([0.3, 1.0])))
    assert run.errors[-1].validation is None


def test_error_rates_come_as_often_as_asked() -> None:
    assert [errors.epoch for errors in train(epochs=5, evaluate_every=2).errors] == [0, 2, 4]
    assert train(epochs=2, evaluate_every=0).errors == ()


@pytest.mark.parametrize(("loss", "outputs"), [("cross_entropy", 3), ("binary_cross_entropy", 1)])
def test_one_class_alone_is_refused(loss: str, outputs: int) -> None:
    with pytest.raises(InputError, match="all 40 training samples are of class 0"):
        train(model=network(outputs), y=np.zeros(40, dtype=int), loss=loss)
    train(model=network(1), y=np.ones(40), loss="mse", epochs=1)  # a constant can be regressed upon


def test_targets_beyond_the_dtype_are_named() -> None:
    narrow = network(1).astype("float32")
    with pytest.raises(InputError, match=r"up to 1e\+300, which float32 does not hold"):
        train(model=narrow, x=X.astype(np.float32), y=np.full(40, 1e300), loss="mse")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoints": 1}, "a list of epochs"),
        ({"checkpoints": (-1,)}, "at least 0"),
        ({"checkpoints": (1.5,)}, "a whole number"),
        ({"checkpoints": ("best",)}, "a whole number"),
        ({"validation": X}, r"a pair \(x, y\)"),
        ({"validation": (X,)}, r"a pair \(x, y\)"),
        ({"callbacks": [lambda model: 1]}, "function among the callbacks"),
        ({"lr_groups": [1e-3]}, "a dict of rates by pattern"),
        ({"threads": 0}, "threads=0"),
        ({"schedule": ("cosine", {})}, "cosine' without epochs"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_settings_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        train(**changes)


def test_the_bar_moves_within_an_epoch_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(epochs=2, batch_size=1)
    seen: list[float] = []
    from udlbridge.training import loop, trainer

    bar = loop.progress_bar

    def noted(*arguments: Any) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def watched() -> Any:
            with bar(*arguments) as show:
                assert show is not None
                yield lambda epochs, loss, error: (seen.append(epochs), show(epochs, loss, error))

        return watched()

    monkeypatch.setattr(loop, "progress_bar", noted)
    shown = train(epochs=2, batch_size=1, progress=True)
    assert len(seen) == 2 * trainer.PIECES
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (1 / trainer.PIECES, 2.0)
    assert shown.model == plain.model
    np.testing.assert_array_equal(shown.losses, plain.losses)
    assert "left" in capsys.readouterr().err


def test_threads_are_set_for_every_epoch(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    own = ThreadLimit.to
    monkeypatch.setattr(ThreadLimit, "to", lambda limit, count: (seen.append(count), own(limit, count))[1])
    train(backend=backend, threads=1, epochs=2)
    assert [count for count in seen if count] == [1, 1]  # 0: on a GPU, how precise float32 is


def test_seconds_add_up_over_sittings() -> None:
    run = train()
    later = train(epochs=3, resume=run)
    assert later.seconds > run.seconds


def test_a_complete_run_that_is_resumed_is_saved(tmp_path: Path) -> None:
    run = train()
    train(resume=run, save_to=tmp_path / "run.safetensors")
    assert ub.TrainingRun.load(tmp_path / "run.safetensors").model == run.model


def change(path: Path, about: dict[str, Any], arrays: dict[str, np.ndarray | None]) -> None:
    """Write a run's file again with some of its parts changed, or left out (None)."""
    metadata, tensors = read_safetensors(path, "run", RunFileError)
    words = {**json.loads(metadata["udlbridge_run"]), **about}
    contents = {**tensors, **arrays}
    write_safetensors(
        path, {k: v for k, v in contents.items() if v is not None}, {"udlbridge_run": json.dumps(words)}, RunFileError
    )


DAMAGE: dict[str, tuple[dict[str, Any], dict[str, np.ndarray | None]]] = {
    "no slots": ({"slots": []}, {}),
    "another number of epochs": ({"epochs": 1}, {}),
    "another number of steps": ({"step": 7}, {}),
    "losses cut off": ({}, {"losses": np.zeros(3)}),
    "a slot of another shape": ({}, {"slot/first/0.bias": np.zeros(4)}),
    "a slot of another dtype": ({}, {"slot/first/0.bias": np.zeros(5, dtype=np.float32)}),
    "a slot that is not there": ({}, {"slot/second/0.weight": None}),
    "no plan": ({"plan": {}}, {}),
    "no records": ({"records": None}, {}),
    "records of different length": ({}, {"record/own/calls": np.zeros(2)}),
}


@pytest.mark.parametrize(("about", "arrays"), DAMAGE.values(), ids=DAMAGE)
def test_files_whose_parts_do_not_belong_together(
    tmp_path: Path, about: dict[str, Any], arrays: dict[str, np.ndarray | None]
) -> None:
    path = tmp_path / "run.safetensors"
    train(optimizer="adam", callbacks=[Measuring(lambda call: {"calls": float(call)})], save_to=path)
    ub.TrainingRun.load(path)
    change(path, about, arrays)
    with pytest.raises(RunFileError, match="does not hold a whole run"):
        ub.TrainingRun.load(path)


@pytest.mark.usefixtures("untyped")
def test_a_run_with_numbers_of_numpy_can_be_saved_and_resumed(tmp_path: Path) -> None:
    """Settings of NumPy's types are Python's: the file of a run holds them as JSON."""
    plain = {"every": 2, "layer": -2, "outputs": 0, "quantities": ("ntk_change", "feature_alignment")}
    probe = ub.Probe(X[:10], target=TARGET, **plain)
    settings = {"epochs": 2, "batch_size": 10, "seed": 0, "evaluate_every": 1, "checkpoints": [1], "clip_norm": 0.5}
    settings |= {"threads": 1}
    settings |= {"optimizer": ("adam", {"lr": 0.5, "betas": (0.5, 0.75)}), "lr_groups": {"0.*": 0.25}}
    settings |= {"schedule": ("step", {"every": 1, "factor": 0.5})}
    expected = train(**settings, callbacks=[probe])

    def of_numpy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of_numpy(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(of_numpy(one) for one in value)
        if isinstance(value, int):
            return np.int64(value)
        return np.float32(value) if isinstance(value, float) else np.str_(value) if isinstance(value, str) else value

    same = ub.Probe(X[:10], target=TARGET, **of_numpy(plain))
    path = tmp_path / "run"
    train(**of_numpy(settings) | {"epochs": np.array(1)}, callbacks=[same], save_to=path)
    found = train(**settings, callbacks=[probe], resume=path, save_to=path)
    assert json.dumps(found.to_dict()["plan"]) == json.dumps(expected.to_dict()["plan"])
    assert found.model == expected.model
    assert ub.TrainingRun.load(path).model == expected.model


class Fixed:
    """A callback that gives what it is told to."""

    def __init__(self, measured: Any, name: Any = "fixed", spec: Any = None, every: Any = 1) -> None:
        self.measured, self.name, self.every = measured, name, np.int64(every)
        if spec is not None:
            self.spec = lambda: spec

    def begin(self, start: ub.Model, backend: str) -> Callable[[ub.Model], Any]:
        return lambda model: self.measured


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (Fixed({"a": np.array(["x"])}), r"'a' of callback 'fixed' of dtype <U1"),
        (Fixed({"a": None}), r"'a' of callback 'fixed' is None"),
        (Fixed({"a": 1j}), r"'a' of callback 'fixed' has dtype complex128.*real numbers"),
        (Fixed({"a": np.ma.ones(2)}), "mask"),
        (Fixed([1.0]), r"callback 'fixed' gives a list.*by name"),
        (Fixed({1: 1.0}), r"callback 'fixed' gives a dict.*by name"),
        (Fixed({}, spec={"x": X}), r"spec\(\) of callback 'fixed' is not JSON-ready"),
        (Fixed({}, name=3), r"a callback with the name 3"),
        (Fixed({}, every=0), r"every of callback 'fixed'=0"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_no_file_of_a_run_can_hold_is_refused_before_the_training(callback: Fixed, words: str) -> None:
    with pytest.raises((OptionError, InputError), match=words):
        train(callbacks=[callback])


@pytest.mark.usefixtures("untyped")
def test_measurements_in_any_container(tmp_path: Path) -> None:
    measured = {"list": [1, 2], "number": np.float32(0.5), "big-endian": np.arange(3, dtype=">f8"), "flag": True}
    path = tmp_path / "run"
    train(callbacks=[Fixed(measured)], save_to=path)
    found = ub.TrainingRun.load(path).records["fixed"]
    assert found["list"][-1].tolist() == [1, 2]
    assert found["number"].dtype == np.float32
    assert found["big-endian"][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "changes",
    [{"every": 0}, {"every": 1.5}, {"every": True}, {"layer": "last"}, {"quantities": ()}, {"quantities": [1]}],
)
@pytest.mark.usefixtures("untyped")
def test_bad_probes(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(changes))):
        ub.Probe(X[:10], **{"every": 1, **changes})
