"""Loss gradients and training of an engine, against the formulas of losses and optimisers and complex steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from udlbridge.backends.base import Backend
from udlbridge.backends.jobs import Slopes, TrainJob, TrainState
from udlbridge.backends.optimisers import OPTIMISERS, checked_optimizer
from udlbridge.networks.layers import Dense
from udlbridge.networks.model import Model
from udlbridge.testing.conformance import oracle
from udlbridge.testing.conformance.held import near
from udlbridge.testing.conformance.networks import SMALL, batch, network

Arrays = Mapping[str, np.ndarray]
Losses = dict[str, Callable[[np.ndarray, np.ndarray], Any]]

LOSSES: Losses = {
    "mse": lambda f, y: ((f - y) ** 2).mean(),
    "cross_entropy": lambda f, y: -(y * np.log(oracle.softmax(f))).sum() / len(f),
    "binary_cross_entropy": lambda f, y: (oracle.softplus(f) - y * f).mean(),
}
N = 5


def gradient_of(loss: Callable[[Arrays], Any], params: Arrays) -> dict[str, np.ndarray]:
    """d loss / d parameter by name."""
    return {
        name: oracle.derivative(lambda p, name=name: loss({**params, name: p}), array)  # type: ignore[misc]
        for name, array in params.items()
    }


def targets(n_outputs: int) -> np.ndarray:
    """Rows that sum to one, (n, O): every loss takes them."""
    return oracle.softmax(np.random.default_rng(6).standard_normal((N, n_outputs)))


def check_gradient(what: str, found: tuple[float, Arrays], value: float, gradient: Arrays) -> None:
    """A loss and its gradient by name."""
    near(f"{what}: the loss", np.asarray(found[0], dtype=np.float64), np.asarray(value))
    assert list(found[1]) == list(gradient), f"{what}: gradients of {list(found[1])}, and not of {list(gradient)}"
    size = max(float(np.abs(g).max()) for g in gradient.values())
    for name, expected in gradient.items():
        near(f"{what}: the gradient by {name}", found[1][name], expected, size=size)


def loss_gradients(engine: Backend[Any]) -> None:
    """Every loss, of a chain of Dense layers, of a convolution and of a table of tokens."""
    for name in (SMALL, "conv2d", "transformer"):
        model, x = network(name), batch(name, N)
        y = targets(model.output_shape(x.shape[1:])[0])
        for loss, formula in LOSSES.items():

            def of(
                params: Arrays, formula: Any = formula, model: Model = model, x: np.ndarray = x, y: np.ndarray = y
            ) -> Any:
                return formula(oracle.value(model, x, params), y)

            found = engine.loss_gradient(model, x, y, loss)
            check_gradient(f"{loss} of {name}", found, float(of(model.params)), gradient_of(of, model.params))


def _two_layers() -> Model:
    return Model([Dense(3, 4, "tanh"), Dense(4, 2)], seed=4, dtype="float64")


def _sobolev(params: Arrays, x: np.ndarray, y: np.ndarray, slopes: Slopes) -> Any:
    """The loss of values and slopes, with d f_a / d x_d = sum_h V_ah (1 - tanh^2 z_h) W_hd written out."""
    hidden = np.tanh(x @ params["0.weight"].T + params["0.bias"])
    f = hidden @ params["1.weight"].T + params["1.bias"]
    slope = np.einsum("ah,ih,hd->iad", params["1.weight"], 1 - hidden**2, params["0.weight"])
    gap, bend = np.where(np.isnan(y), 0, f - y), np.where(np.isnan(slopes.values), 0, slope - slopes.values)
    return ((gap**2).sum() + slopes.weight * (bend**2).sum()) / len(x)


def _observed() -> tuple[np.ndarray, np.ndarray, Slopes]:
    """Samples, values of some of them, and slopes of some of them."""
    generator = np.random.default_rng(7)
    x, y = generator.standard_normal((N, 3)), generator.standard_normal((N, 2))
    slopes = generator.standard_normal((N, 2, 3))
    y[1], y[3, 0], slopes[0], slopes[2, 1, 2] = np.nan, np.nan, np.nan, np.nan
    return x, y, Slopes(slopes, 0.7)


def slope_losses(engine: Backend[Any]) -> None:
    """The loss of values and slopes, where some of both were not observed."""
    model, (x, y, slopes) = _two_layers(), _observed()
    value = float(_sobolev(model.params, x, y, slopes))
    expected = gradient_of(lambda params: _sobolev(params, x, y, slopes), model.params)
    check_gradient("sobolev", engine.loss_gradient(model, x, y, "sobolev", slopes), value, expected)


@dataclass
class ByFormula:
    """A training by the formulas of `OPTIMISERS`, with gradients by complex steps; `loss` maps (params, batch)."""

    job: TrainJob
    loss: Callable[[Arrays, np.ndarray], Any]
    params: dict[str, np.ndarray]
    slots: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    step: int = 0

    def epoch(self, order: np.ndarray, batch_size: int, factor: float) -> np.ndarray:
        """The losses before each step."""
        losses = []
        for start in range(0, len(order), batch_size):
            own = order[start : start + batch_size]
            losses.append(float(self.loss(self.params, own)))
            gradient = gradient_of(lambda params, own=own: self.loss(params, own), self.params)  # type: ignore[misc]
            norm, limit = np.sqrt(sum((g**2).sum() for g in gradient.values())), self.job.clip_norm
            self.step += 1
            for name, g in gradient.items():
                clipped = g if limit is None else g * min(1.0, limit / norm)
                self.params[name] = self._moved(name, clipped, self.job.rates[name] * factor)
        return np.array(losses)

    def _moved(self, name: str, g: np.ndarray, lr: float) -> np.ndarray:
        s, p, kind, t = self.job.optimizer.settings, self.params[name], self.job.optimizer.name, self.step
        decay = s["weight_decay"] * p
        g = g if kind == "adamw" else g + decay
        own = {slot: self.slots.setdefault(slot, {}).get(name, np.zeros(p.shape)) for slot in self.job.optimizer.slots}
        match kind:
            case "sgd":
                return p - lr * g
            case "momentum" | "nesterov":
                v = s["momentum"] * own["velocity"] + lr * g
                self.slots["velocity"][name] = v
                return p - (v if kind == "momentum" else s["momentum"] * v + lr * g)
            case "torch_momentum":
                v = s["momentum"] * own["velocity"] + g
                self.slots["velocity"][name] = v
                return p - lr * v
            case "rmsprop":
                square = s["rho"] * own["second"] + (1 - s["rho"]) * g**2
                self.slots["second"][name] = square
                return p - lr * g / (np.sqrt(square) + s["eps"])
            case "adam" | "adamw":
                m = s["beta1"] * own["first"] + (1 - s["beta1"]) * g
                square = s["beta2"] * own["second"] + (1 - s["beta2"]) * g**2
                self.slots["first"][name], self.slots["second"][name] = m, square
                corrected = np.sqrt(square / (1 - s["beta2"] ** t)) + s["eps"]
                moved = p - lr * (m / (1 - s["beta1"] ** t)) / corrected
                return moved - lr * decay if kind == "adamw" else moved
        raise TypeError(f"no formula for {kind}")


ORDERS = (np.array([3, 0, 4, 1, 2]), np.array([1, 2, 0, 3, 4]))


def job_of(optimizer: str, **changes: Any) -> TrainJob:
    """A training of two layers that have learning rates of their own."""
    model = _two_layers()
    rates = {name: 0.05 if name.startswith("0") else 0.02 for name in model.params}
    settings = {"weight_decay": 0.1} | ({"eps": 1e-3} if "eps" in OPTIMISERS[optimizer].defaults else {})
    return replace(TrainJob(model, "mse", checked_optimizer((optimizer, settings)), rates), **changes)


def begun(engine: Backend[Any], job: TrainJob, x: np.ndarray, y: np.ndarray, state: TrainState | None = None) -> Any:
    """A training from the start, or from a state."""
    return engine.training(job, x, y, TrainState(job.model.params) if state is None else state)


def check_state(what: str, found: TrainState, params: Arrays, slots: Mapping[str, Arrays], step: int) -> None:
    """Where a training stands."""
    assert found.step == step, f"{what} stands at step {found.step}, and not {step}"
    assert list(found.params) == list(params), f"{what} has parameters {list(found.params)}"
    assert set(found.slots) == set(slots), f"{what} has slots {set(found.slots)}, and not {set(slots)}"
    for kind, arrays in {"parameter": params, **slots}.items():
        size = max(float(np.abs(array).max()) for array in arrays.values())
        own = found.params if kind == "parameter" else found.slots[kind]
        for name, array in arrays.items():
            near(f"{what}, {kind} {name}", own[name], array, size=size, factor=10)


def optimisers(engine: Backend[Any]) -> None:
    """Two epochs of every optimiser and every loss: batches, the last one smaller; rates, their factor, clipping."""
    x, y = batch(SMALL, N), targets(2)
    jobs = [job_of(name) for name in OPTIMISERS]
    jobs += [job_of("sgd", loss=loss, clip_norm=0.05) for loss in LOSSES]
    for job in jobs:

        def loss(params: Arrays, own: np.ndarray, job: TrainJob = job) -> Any:
            return LOSSES[job.loss](oracle.value(job.model, x[own], params), y[own])

        _check_training(engine, job, x, y, loss)
    x, y, slopes = _observed()
    job = job_of("momentum", loss="sobolev", slopes=slopes)
    _check_training(engine, job, x, y, lambda params, own: _sobolev(params, x[own], y[own], slopes.of(own)))


def _check_training(
    engine: Backend[Any], job: TrainJob, x: np.ndarray, y: np.ndarray, loss: Callable[[Arrays, np.ndarray], Any]
) -> None:
    what = f"training by {job.optimizer.name} on {job.loss}"
    expected = ByFormula(job, loss, dict(job.model.params), {slot: {} for slot in job.optimizer.slots})
    session = begun(engine, job, x, y)
    for order, factor in zip(ORDERS, (1.0, 0.5), strict=True):
        losses = expected.epoch(order, 2, factor)
        near(f"{what}: losses", session.epoch(order, 2, factor), losses, factor=10)
    check_state(what, session.state(), expected.params, expected.slots, expected.step)


def resumed_trainings(engine: Backend[Any]) -> None:
    """A training that goes on from a state is, bit for bit, one that was not interrupted."""
    x, y = batch(SMALL, N), targets(2)
    for name in OPTIMISERS:
        job = job_of(name, clip_norm=0.3)
        whole = begun(engine, job, x, y)
        whole.epoch(ORDERS[0], 2, 1.0)
        half = whole.state()
        whole.epoch(ORDERS[1], 2, 0.5)
        again = begun(engine, job, x, y, half)
        again.epoch(ORDERS[1], 2, 0.5)
        first, second = whole.state(), again.state()
        assert first.step == second.step, f"{name}: {first.step} steps without a break, {second.step} with one"
        for key, array in first.params.items():
            assert np.array_equal(array, second.params[key]), f"{name}, parameter {key}: not as without a break"
        for slot, arrays in first.slots.items():
            for key, array in arrays.items():
                assert np.array_equal(array, second.slots[slot][key]), f"{name}, {slot} {key}: not as without a break"


def linearized_trainings(engine: Backend[Any]) -> None:
    """Outputs and trainings of a linearised network, f(x) + J(x) (theta - theta_0), also from parameters elsewhere."""
    x, y = batch(SMALL, N), targets(2)
    for loss in LOSSES:
        job = job_of("momentum", loss=loss, linearized=True)
        start = job.model
        f = oracle.value(start, x, start.params)
        j = oracle.jacobian(start, x)

        def linear(params: Arrays, f: Any = f, j: Arrays = j, start: Model = start) -> Any:
            moved = {name: params[name] - array for name, array in start.params.items()}
            return f + sum(np.tensordot(j[name], move, move.ndim) for name, move in moved.items())

        def of(params: Arrays, own: np.ndarray, loss: str = loss, linear: Any = linear) -> Any:
            return LOSSES[loss](linear(params)[own], y[own])

        _check_training(engine, job, x, y, of)
        away = {name: array + 0.1 for name, array in start.params.items()}
        direction = {name: away[name] - array for name, array in start.params.items()}
        near("the expansion of degree 1", engine.expand(start, x, direction, 1), linear(away), factor=10)
        near("the expansion of degree 0", engine.expand(start, x, direction, 0), f)
        expected = ByFormula(job, of, dict(away), {"velocity": {}})
        zeros = {"velocity": {name: np.zeros_like(array) for name, array in away.items()}}
        session = begun(engine, job, x, y, TrainState(away, zeros, 1))
        losses = expected.epoch(ORDERS[0], 2, 1.0)
        near(
            f"linearised training on {loss} from elsewhere: losses", session.epoch(ORDERS[0], 2, 1.0), losses, factor=10
        )


def overflowing_losses(engine: Backend[Any]) -> None:
    """A loss that is not finite comes last, and its step is not made."""
    x, y = batch(SMALL, N), targets(2)
    y[ORDERS[0][2]] = 1e200  # its square is beyond float64
    job = job_of("momentum")
    session = begun(engine, job, x, y)
    with np.errstate(over="ignore"):
        losses = session.epoch(ORDERS[0], 1, 1.0)
    assert losses.shape == (3,), f"{len(losses)} losses, and not 3, where the third overflows"
    assert np.isfinite(losses[:2]).all(), f"the first losses are {losses[:2]}"
    assert not np.isfinite(losses[2]), f"the loss that overflows is {losses[2]}"
    before = begun(engine, job, x, y)
    before.epoch(ORDERS[0][:2], 1, 1.0)
    found, expected = session.state(), before.state()
    check_state("training after an overflow", found, expected.params, expected.slots, 2)
