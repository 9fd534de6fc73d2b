"""Training: real Flux runs, engines against each other, resuming, probes, divergence."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import udlbridge as ub
from architectures import EVERY_LAYER, TOKENS, batch, shaken
from helpers import AGAINST_REFERENCE, GOLDENS, load_golden
from udlbridge import backends
from udlbridge.backends.optimisers import OPTIMISERS
from udlbridge.errors import OptionError, RunFileError, TrainingDiverged
from udlbridge.tolerances import relative_difference
from udlbridge.training.trainer import batch_order

TRAIN_GOLDENS = sorted(path.stem for path in GOLDENS.glob("train_*.npz"))
SETTINGS = {
    "Descent": ("sgd", ("lr",)),
    "Momentum": ("momentum", ("lr", "momentum")),
    "Nesterov": ("nesterov", ("lr", "momentum")),
    "Adam": ("adam", ("lr",)),
    "AdamW": ("adamw", ("lr", "beta1", "beta2", "weight_decay")),
    "RMSProp": ("rmsprop", ("lr", "rho")),
}
RECIPES = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "torch_momentum": {"lr": 0.05, "momentum": 0.9},
    "nesterov": {"lr": 0.05, "momentum": 0.9},
    "adam": {"lr": 0.01, "betas": (0.9, 0.99)},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.005, "rho": 0.9},
}


def flux_optimizer(text: str) -> tuple[str, dict[str, float]]:
    kind, inside = re.fullmatch(r"(\w+)\((.*)\)", text).groups()
    name, keys = SETTINGS[kind]
    return name, dict(zip(keys, [float(v) for v in re.findall(r"[\d.]+", inside)], strict=True))


def blobs(n: int = 60, dtype: str = "float64", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian classes in four dimensions."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (rng.standard_normal((n, 4)) + 1.5 * np.eye(3, 4)[y]).astype(dtype), y


def network(dtype: str = "float64", seed: int = 3) -> ub.Model:
    return ub.Model([ub.Dense(4, 9, "tanh"), ub.Dense(9, 6, "relu"), ub.Dense(6, 3)], seed=seed, dtype=dtype)


def assert_same_run(a: ub.TrainingRun, b: ub.TrainingRun) -> None:
    assert a.model == b.model
    assert a.errors == b.errors
    assert a.epochs == b.epochs
    assert a.state.step == b.state.step
    np.testing.assert_array_equal(a.losses, b.losses)
    assert list(a.checkpoints) == list(b.checkpoints)
    assert all(a.checkpoints[epoch] == b.checkpoints[epoch] for epoch in a.checkpoints)
    for slot, arrays in a.state.slots.items():
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, b.state.slots[slot][name])
    assert {name: list(series) for name, series in a.records.items()} == {
        name: list(series) for name, series in b.records.items()
    }
    for name, series in a.records.items():
        for key, value in series.items():
            np.testing.assert_array_equal(value, b.records[name][key])


def test_every_optimiser_and_loss_has_a_golden() -> None:
    assert len(TRAIN_GOLDENS) == 12
    recorded = {flux_optimizer(load_golden(name)[0]["optimizer"])[0] for name in TRAIN_GOLDENS}
    assert recorded == set(OPTIMISERS) - {"torch_momentum"}  # which Flux does not have; torch's own loop is its oracle


@pytest.mark.parametrize("name", TRAIN_GOLDENS)
def test_recorded_flux_training(name: str, backend: str) -> None:
    spec, params, golden = load_golden(name)
    model = ub.Model([ub.Dense(4, 8, "tanh"), ub.Dense(8, 3)], params)
    loss = {"mse": "mse", "logitcrossentropy": "cross_entropy"}[spec["loss"]]
    run = ub.train(
        model,
        golden["x"],
        golden["y"],
        backend=backend,
        loss=loss,
        optimizer=flux_optimizer(spec["optimizer"]),
        epochs=spec["steps"],
    )
    np.testing.assert_allclose(run.losses, golden["losses"], rtol=1e-12)
    for key, value in run.model.params.items():
        assert relative_difference(value, golden[f"final:{key}"]) <= 1e-12


@cache
def two_hundred_steps(engine: str, name: str, settings: str) -> ub.TrainingRun:
    """Every engine is compared with the same runs of the others."""
    x, y = blobs()
    return ub.train(
        network(),
        x,
        y,
        backend=engine,
        optimizer=(name, {**RECIPES[name], **({"weight_decay": 0.02} if settings == "decay" else {})}),
        epochs=50,
        batch_size=16,
        lr_groups={"0.*": RECIPES[name]["lr"] / 10},
        schedule=("cosine", {"epochs": 60, "floor": 0.05}),
        clip_norm=0.3,
        evaluate_every=0,
    )


@pytest.mark.costly("plain")
@AGAINST_REFERENCE
@pytest.mark.parametrize("settings", ["plain", "decay"])
@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_engines_stay_together_over_200_steps(name: str, settings: str, backend: str) -> None:
    run = two_hundred_steps(backend, name, settings)
    assert len(run.losses) == 200
    for other in ("reference", "torch") if backend == "julia" else ("reference",):
        peer = two_hundred_steps(other, name, settings)
        np.testing.assert_allclose(run.losses, peer.losses, rtol=1e-9)
        for key in run.model.params:
            assert relative_difference(run.model.params[key], peer.model.params[key]) <= 1e-9
        for slot in run.state.slots:
            for key in run.model.params:
                assert relative_difference(run.state.slots[slot][key], peer.state.slots[slot][key]) <= 1e-9


def test_torch_momentum_is_that_of_torch_where_the_rate_changes(backend: str) -> None:
    """Flux's remembers steps with their own rate, so that the two part at the first change of the rate."""
    torch = pytest.importorskip("torch")
    x, y = blobs()
    orders = np.stack([np.random.default_rng(epoch).permutation(len(x)) for epoch in range(5)])
    own = ub.to_torch(network())
    optimizer = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9, weight_decay=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    losses = []
    for order in orders:
        for rows in np.split(order, range(16, len(x), 16)):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(own(torch.tensor(x[rows])), torch.tensor(y[rows]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()

    def train(name: str) -> ub.TrainingRun:
        return ub.train(
            network(),
            x,
            y,
            backend=backend,
            optimizer=(name, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.02}),
            schedule=("step", {"every": 2, "factor": 0.5}),
            epochs=5,
            batch_size=16,
            orders=orders,
        )

    run = train("torch_momentum")
    np.testing.assert_allclose(run.losses, losses, rtol=1e-12)
    for value, expected in zip(run.model.params.values(), own.parameters(), strict=True):
        assert relative_difference(value, expected.detach().numpy()) <= 1e-12
    flux = train("momentum")
    np.testing.assert_allclose(flux.losses[:9], run.losses[:9], rtol=1e-12)  # two epochs, and the step before the next
    assert np.abs(flux.losses[9:] / run.losses[9:] - 1).max() > 1e-3


def test_orders_that_are_given_are_kept_and_belong_to_the_run(backend: str) -> None:
    x, y = blobs(8)
    orders = np.stack([batch_order(8, 0, 0), batch_order(8, 0, 1), np.arange(8)])

    def train(epochs: int, **more: object) -> ub.TrainingRun:
        return ub.train(network(), x, y, backend=backend, epochs=epochs, batch_size=3, **more)

    drawn, given = train(2), train(2, orders=orders)
    assert drawn.model == given.model
    assert train(3, orders=orders).model != train(3).model
    assert_same_run(train(3, orders=orders, resume=given), train(3, orders=orders))
    with pytest.raises(RunFileError, match="orders"):
        train(3, resume=given)


@pytest.mark.parametrize(
    "orders",
    [
        np.arange(8),
        np.arange(7)[None],
        np.zeros((1, 8), int),
        np.arange(8.0)[None],
        np.arange(1, 9)[None],
        np.zeros((0, 8), int),
    ],
)
def test_orders_that_are_none(orders: object) -> None:
    x, y = blobs(8)
    with pytest.raises(OptionError, match="orders"):
        ub.train(network(), x, y, backend="reference", epochs=1, orders=orders)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_loss_gradient_by_finite_differences(loss: str, backend: str) -> None:
    x, y = blobs(7)
    model = network()
    value, gradient = ub.loss_gradient(model, x, y, loss=loss, backend=backend)
    f, targets = ub.outputs(model, x, backend="reference"), np.eye(3)[y]
    expected = {
        "mse": np.mean((f - targets) ** 2),
        "cross_entropy": -np.mean(np.sum(targets * np.log(np.exp(f) / np.exp(f).sum(1, keepdims=True)), axis=1)),
        "binary_cross_entropy": np.mean(np.log(1 + np.exp(f)) - targets * f),
    }[loss]
    assert value == pytest.approx(expected, rel=1e-12)
    rng = np.random.default_rng(0)
    for name, g in gradient.items():
        direction = rng.standard_normal(g.shape)
        shifted = [
            ub.loss_gradient(
                model.with_params({**model.params, name: model.params[name] + sign * 1e-5 * direction}),
                x,
                y,
                loss=loss,
                backend="reference",
            )[0]
            for sign in (1, -1)
        ]
        slope = (shifted[0] - shifted[1]) / 2e-5
        assert np.sum(g * direction) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_losses_do_not_overflow(backend: str) -> None:
    model = ub.Model([ub.Dense(1, 2)], {"0.weight": np.array([[400.0], [-400.0]]), "0.bias": np.zeros(2)})
    x = np.array([[3.0], [-3.0]])
    for loss in ("cross_entropy", "binary_cross_entropy"):
        value, gradient = ub.loss_gradient(model, x, np.array([1, 1]), loss=loss, backend=backend)
        assert value == pytest.approx(1200.0 if loss == "cross_entropy" else 600.0, rel=1e-12)
        assert all(np.isfinite(g).all() for g in gradient.values())


@pytest.mark.costly("sgd")
@pytest.mark.sampled
@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_a_resumed_run_equals_one_that_was_not_interrupted(name: str, backend: str, tmp_path: Path) -> None:
    x, y = blobs()
    model = network("float32")
    x = x.astype(np.float32)
    probe = ub.Probe(x[:8], every=3, quantities=("ntk", "ntk_change"))

    def train(epochs: int, **more: object) -> ub.TrainingRun:
        return ub.train(
            model,
            x,
            y,
            backend=backend,
            optimizer=(name, {**RECIPES[name], "weight_decay": 0.01}),
            epochs=epochs,
            batch_size=25,
            seed=5,
            lr_groups={"0.*": 0.003},
            schedule=("step", {"every": 2, "factor": 0.5}),
            validation=(x[:20], y[:20]),
            checkpoints=(0, 1, 4),
            callbacks=[probe],
            **more,
        )

    whole = train(5)
    path = tmp_path / "run.safetensors"
    train(2, save_to=path)
    loaded = ub.TrainingRun.load(path)
    assert loaded.epochs == 2
    assert_same_run(train(5, resume=path), whole)
    assert_same_run(train(5, resume=train(3)), whole)
    assert_same_run(train(5, resume=whole), whole)


def test_a_run_resumes_on_another_engine(backend: str) -> None:
    x, y = blobs()
    settings = {"optimizer": ("adam", {"lr": 0.01}), "batch_size": 20}
    half = ub.train(network(), x, y, backend="reference", epochs=3, **settings)
    other = ub.train(network(), x, y, backend=backend, epochs=6, resume=half, **settings)
    whole = ub.train(network(), x, y, backend="reference", epochs=6, **settings)
    np.testing.assert_allclose(other.losses, whole.losses, rtol=1e-12)


def test_a_saved_run_is_the_same_when_loaded(backend: str, tmp_path: Path) -> None:
    x, y = blobs()
    run = ub.train(
        network(),
        x,
        y,
        backend=backend,
        epochs=2,
        batch_size=32,
        optimizer=("momentum", {"lr": 0.1}),
        callbacks=[ub.Probe(x[:5], every=1, quantities=("feature_kernel",))],
        checkpoints=[1],
    )
    run.save(tmp_path / "run.safetensors")
    loaded = ub.TrainingRun.load(tmp_path / "run.safetensors")
    assert_same_run(loaded, run)
    assert loaded.to_dict() == run.to_dict()
    assert loaded.records["probe"]["feature_kernel"].shape == (5, 5, 5)


def test_batches_are_those_of_the_seed_and_cover_all_samples() -> None:
    for epoch in range(3):
        order = batch_order(50, 7, epoch)
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
        np.testing.assert_array_equal(order, batch_order(50, 7, epoch))
    assert (batch_order(50, 7, 0) != batch_order(50, 7, 1)).any()
    assert (batch_order(50, 7, 0) != batch_order(50, 8, 0)).any()


def test_the_loss_of_a_step_is_that_of_its_batch_before_it(backend: str) -> None:
    x, y = blobs(50)
    run = ub.train(network(), x, y, backend=backend, epochs=1, batch_size=20, optimizer=("sgd", {"lr": 0.1}), seed=9)
    model, order = network(), batch_order(50, 9, 0)
    for step, start in enumerate(range(0, 50, 20)):
        batch = order[start : start + 20]
        value, gradient = ub.loss_gradient(model, x[batch], y[batch], backend="reference")
        assert run.losses[step] == pytest.approx(value, rel=1e-12)
        model = model.with_params({name: p - 0.1 * gradient[name] for name, p in model.params.items()})
    for name, p in model.params.items():
        np.testing.assert_allclose(run.model.params[name], p, rtol=0, atol=1e-13)


def test_clipping_bounds_the_step_by_the_norm_over_all_parameters(backend: str) -> None:
    x, y = blobs()
    for limit in (1e-3, 1e3):
        run = ub.train(network(), x, y, backend=backend, epochs=1, optimizer=("sgd", {"lr": 1.0}), clip_norm=limit)
        _, gradient = ub.loss_gradient(network(), x, y, backend="reference")
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        steps = {name: network().params[name] - p for name, p in run.model.params.items()}
        moved = np.sqrt(sum(np.sum(s**2) for s in steps.values()))
        assert moved == pytest.approx(min(limit, norm), rel=1e-9)


def test_a_group_with_rate_zero_does_not_move(backend: str) -> None:
    x, y = blobs()
    run = ub.train(network(), x, y, backend=backend, epochs=3, lr_groups={"0.*": 0.0, "*": 0.1}, optimizer="nesterov")
    np.testing.assert_array_equal(run.model.params["0.weight"], network().params["0.weight"])
    assert (run.model.params["1.weight"] != network().params["1.weight"]).any()


def test_momentum_with_a_schedule_follows_flux(backend: str) -> None:
    """v = momentum v + lr g, so that a step keeps the rate of its time."""
    model = ub.Model([ub.Dense(1, 1, bias=False)], {"0.weight": np.array([[2.0]])})
    x, y = np.array([[1.0]]), np.array([[0.0]])
    run = ub.train(
        model,
        x,
        y,
        backend=backend,
        loss="mse",
        epochs=3,
        optimizer=("momentum", {"lr": 0.1, "momentum": 0.5}),
        schedule=("step", {"every": 1, "factor": 0.1}),
    )
    w, v = 2.0, 0.0
    for lr in (0.1, 0.01, 0.001):
        v = 0.5 * v + lr * 2 * w
        w -= v
    assert run.model.params["0.weight"][0, 0] == pytest.approx(w, rel=1e-14)


def test_schedules_against_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    from udlbridge.training.schedules import checked_schedule

    for spec, build in (
        (("step", {"every": 3, "factor": 0.3}), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.3)),
        (
            ("cosine", {"epochs": 10, "floor": 0.1}),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.2),
        ),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        scheduler, schedule = build(optimizer), checked_schedule(spec)
        for epoch in range(11):
            assert 2.0 * schedule.factor(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
            optimizer.step()
            scheduler.step()
    assert checked_schedule(("cosine", {"epochs": 4, "floor": 0.1})).factor(9) == 0.1


def test_errors_checkpoints_and_probe_are_what_they_say(backend: str) -> None:
    x, y = blobs(90)
    target = ub.label_kernel(np.eye(3)[y[:30]])
    every = ("ntk", "feature_kernel", "ntk_alignment", "feature_alignment", "ntk_change")
    run = ub.train(
        network(),
        x[:60],
        y[:60],
        backend=backend,
        epochs=4,
        batch_size=30,
        optimizer=("adam", {"lr": 0.02}),
        validation=(x[60:], y[60:]),
        checkpoints=(0, 2, 4),
        callbacks=[ub.Probe(x[:30], every=4, quantities=every, target=target)],
    )
    assert [e.epoch for e in run.errors] == [0, 1, 2, 3, 4]
    assert run.checkpoints[0] == network()
    assert run.checkpoints[4] == run.model
    for epoch, model in run.checkpoints.items():
        f = ub.outputs(model, x, backend="reference")
        wrong = f.argmax(1) != y
        assert run.errors[epoch].train == pytest.approx(wrong[:60].mean())
        assert run.errors[epoch].validation == pytest.approx(wrong[60:].mean())
    series = run.records["probe"]
    np.testing.assert_array_equal(series["step"], [0, 4, 8])
    for row, epoch in enumerate((0, 2, 4)):
        model = run.checkpoints[epoch]
        kernel, start = (ub.ntk(m, x[:30], backend="reference") for m in (model, run.checkpoints[0]))
        phi = ub.feature_kernel(model, x[:30], layer=1, backend="reference")
        np.testing.assert_allclose(series["ntk"][row], kernel, rtol=0, atol=1e-12 * np.abs(kernel).max())
        np.testing.assert_allclose(series["feature_kernel"][row], phi, rtol=0, atol=1e-12 * np.abs(phi).max())
        assert series["ntk_alignment"][row] == pytest.approx(ub.alignment(kernel, target), abs=1e-10)
        assert series["feature_alignment"][row] == pytest.approx(ub.alignment(phi, target), abs=1e-10)
        change = np.linalg.norm(kernel - start) / np.linalg.norm(start)
        assert series["ntk_change"][row] == pytest.approx(change, abs=1e-10)
    assert series["ntk_change"][0] == 0
    assert series["ntk_change"][2] > 0.01
    assert run.versions["udlbridge"] == ub.__version__
    assert set(backends.get(backend).versions()) <= set(run.versions)
    assert run.seconds > 0


@pytest.mark.slow
def test_regression_has_no_error_rate_and_one_output_takes_a_side(backend: str) -> None:
    x, y = blobs()
    model = ub.Model([ub.Dense(4, 5, "tanh"), ub.Dense(5, 1)], seed=1, dtype="float64")
    run = ub.train(model, x, x[:, :1] ** 2, loss="mse", epochs=1, backend=backend)
    assert run.errors[0].train is None
    binary = (y == 0).astype(int)
    for loss, labels in (("binary_cross_entropy", binary), ("mse", 2 * binary - 1), ("mse", binary)):
        run = ub.train(model, x, labels, loss=loss, epochs=40, backend=backend, optimizer=("adam", {"lr": 0.05}))
        f = ub.outputs(run.model, x, backend="reference")[:, 0]
        middle = 0.5 if loss == "mse" and labels.min() == 0 else 0.0
        assert run.errors[-1].train == pytest.approx(np.mean((f > middle) != binary))
        assert run.errors[-1].train < 0.3


def test_divergence_stops_and_keeps_the_last_good_epoch(backend: str, tmp_path: Path) -> None:
    x, y = blobs()
    model = ub.Model([ub.Dense(4, 8), ub.Dense(8, 3)], seed=0, dtype="float32")
    path = tmp_path / "run.safetensors"
    with pytest.raises(TrainingDiverged, match=r"stopped at step \d+ \(epoch \d+\): .*(nan|inf)") as caught:
        ub.train(
            model,
            x.astype(np.float32),
            y,
            backend=backend,
            loss="mse",
            optimizer=("sgd", {"lr": 30.0}),
            epochs=100,
            batch_size=30,
            save_to=path,
        )
    run = caught.value.run
    step = int(re.search(r"step (\d+)", str(caught.value)).group(1))
    assert run.epochs == (step - 1) // 2
    assert 0 < len(run.losses) == 2 * run.epochs < step
    assert np.isfinite(run.losses).all()
    assert_same_run(ub.TrainingRun.load(path), run)


def test_float32_stays_float32(backend: str) -> None:
    x, y = blobs(dtype="float32")
    for name in OPTIMISERS:
        run = ub.train(network("float32"), x, y, backend=backend, epochs=2, batch_size=32, optimizer=name)
        assert {p.dtype for p in run.model.params.values()} == {np.dtype(np.float32)}
        assert {a.dtype for arrays in run.state.slots.values() for a in arrays.values()} <= {np.dtype(np.float32)}


def test_the_model_that_training_starts_from_is_not_changed(backend: str) -> None:
    x, y = blobs()
    model = network()
    ub.train(model, x, y, backend=backend, epochs=2, optimizer=("sgd", {"lr": 0.5}))
    assert model == network()
    np.testing.assert_array_equal(ub.outputs(model, x, backend=backend), ub.outputs(network(), x, backend=backend))


@pytest.mark.parametrize("name", EVERY_LAYER | TOKENS)
def test_every_layer_is_trained(name: str, backend: str, tmp_path: Path) -> None:
    """The loss's gradient is the Jacobian's, and training follows it; buffers stay and are saved."""
    layers, shape = (EVERY_LAYER | TOKENS)[name]
    model = shaken(layers)
    x = batch(model, shape, 6)
    f = ub.outputs(model, x, backend="reference")
    y = np.random.default_rng(1).standard_normal(f.shape)
    _, gradient = ub.loss_gradient(model, x, y, loss="mse", backend=backend)
    blocks = ub.jacobian(model, x, backend="reference")
    expected = {key: np.einsum("ia,ia...->...", 2 * (f - y) / f.size, block) for key, block in blocks.items()}
    largest = max(np.abs(g).max() for g in expected.values())
    for key, g in gradient.items():
        np.testing.assert_allclose(g, expected[key], rtol=0, atol=1e-12 * largest, err_msg=key)
    path = tmp_path / "run.safetensors"
    norm = np.sqrt(sum(np.sum(g**2) for g in expected.values()))
    run = ub.train(
        model,
        x,
        y,
        loss="mse",
        backend=backend,
        epochs=1,
        optimizer=("sgd", {"lr": 0.2}),
        clip_norm=norm / 2,
        save_to=path,
    )
    for key, p in model.params.items():
        moved = p - 0.1 * expected[key]
        np.testing.assert_allclose(run.model.params[key], moved, rtol=0, atol=1e-12 * max(largest, np.abs(p).max()))
    for key, value in model.buffers.items():
        np.testing.assert_array_equal(run.model.buffers[key], value)
    assert_same_run(ub.TrainingRun.load(path), run)


def test_the_progress_bar_shows_loss_and_error_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = blobs()
    run = ub.train(network(), x, y, backend="reference", epochs=3, progress=True)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert f"loss {run.losses[-1]:.4f}" in shown
    assert f"error {run.errors[-1].train:.2%}" in shown
    ub.train(network(), x, y, backend="reference", epochs=3)
    both = capsys.readouterr()
    assert both.err + both.out == ""
