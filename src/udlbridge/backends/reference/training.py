"""Training by hand: three losses with their derivatives, seven optimisers, one loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from udlbridge.backends.base import Training
from udlbridge.backends.jobs import Slopes, TrainJob, TrainState
from udlbridge.backends.reference.backpropagation import forward, input_jacobian, sites
from udlbridge.backends.reference.graphs.network import evaluate, pull_back
from udlbridge.backends.reference.linearized import linear_loss_gradient
from udlbridge.backends.reference.sites import Elementwise, Lookup, Site
from udlbridge.backends.reference.slopes import slope_gradient
from udlbridge.backends.threads import numpy_blas
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.model import Model

Arrays = dict[str, np.ndarray]


def mse(f: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of (f - y)^2 over all entries, and 2 (f - y) / (n O)."""
    return float(np.mean((f - y) ** 2)), 2 * (f - y) / f.size


def cross_entropy(f: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over samples of -sum_a y_a log softmax(f)_a, and (softmax(f) sum(y) - y) / n."""
    shifted = f - f.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(y * log_p).sum() / len(f)), (np.exp(log_p) * y.sum(axis=1, keepdims=True) - y) / len(f)


def binary_cross_entropy(f: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of log(1 + exp(f)) - y f over all entries, and (sigmoid(f) - y) / (n O)."""
    return float(np.mean(np.logaddexp(f, np.zeros_like(f)) - y * f)), (expit(f) - y) / f.size


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]] = {
    "mse": mse,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}
"""The loss of a batch and its derivative with respect to the outputs f (n, O)."""


def loss_gradient(
    model: Model | Graph,
    x: np.ndarray,
    y: Float[np.ndarray, "n outputs"],
    loss: str,
    slopes: Slopes | None = None,
) -> tuple[float, Arrays]:
    """The mean loss of a batch, and its gradient by name: backpropagation, summed over samples on the way."""
    if isinstance(model, Graph):
        return _of_graph(model, x, y, loss)
    f, saved = forward(model, x)
    value, dy = LOSSES[loss](f, y) if slopes is None else squares(f, y)
    _, found = sites(model, saved, dy)
    grads = {name: g for site in found for name, g in summed(site).items()}
    if slopes is not None:
        # Derivatives with respect to the input are a second kind of outputs, with a backpropagation of their own.
        more, ds = squares(input_jacobian(model, x), slopes.values)
        value += slopes.weight * more
        for name, g in slope_gradient(model, x, slopes.weight * ds).items():
            grads[name] = grads[name] + g
    return value, {name: grads[name] for name in model.params}


def _of_graph(graph: Graph, x: np.ndarray, y: np.ndarray, loss: str) -> tuple[float, Arrays]:
    """The same for a graph: one pass forward, and one back from the derivative by the outputs."""
    values = evaluate(graph, x)
    value, dy = LOSSES[loss](values[graph.output].reshape(len(x), -1), y)
    return value, pull_back(graph, values, dy, list(graph.params))


def squares(found: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over samples of the sum of (found - wanted)^2, and its derivative; 0 where wanted is NaN."""
    gap = np.where(np.isnan(wanted), 0, found - wanted)
    return float((gap**2).sum() / len(gap)), 2 * gap / len(gap)


def summed(site: Site) -> Arrays:
    """The gradient summed over samples; for an affine map in one product, without forming every sample's own."""
    if isinstance(site, Elementwise):
        return {site.name: site.gradient.sum(axis=0)}
    if isinstance(site, Lookup):
        gradient = np.zeros((site.rows, site.d.shape[2]), site.d.dtype)
        np.add.at(gradient, site.tokens, site.d)
        return {site.name: gradient}
    groups, p, q = site.a.shape[1], site.a.shape[3], site.d.shape[3]
    a = site.a.transpose(1, 0, 2, 3).reshape(groups, -1, p)
    d = site.d.transpose(1, 0, 2, 3).reshape(groups, -1, q)
    grads = {site.weight: (d.transpose(0, 2, 1) @ a).reshape(site.shape)}
    if site.bias is not None:
        grads[site.bias] = d.sum(axis=1).reshape(-1)
    return grads


class ReferenceTraining(Training):
    """Plain loops over batches and parameters."""

    def __init__(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> None:
        self._job, self._x, self._y = job, x, y
        self._params = {name: value.copy() for name, value in state.params.items()}
        self._step = state.step
        zeros = {name: np.zeros_like(p) for name, p in self._params.items()}
        self._slots = {
            slot: {name: np.array(value) for name, value in state.slots.get(slot, zeros).items()}
            for slot in job.optimizer.slots
        }

    def epoch(self, order: Int[np.ndarray, " samples"], batch_size: int, factor: float) -> Float[np.ndarray, " steps"]:
        """One pass over `order`."""
        losses: list[float] = []
        with numpy_blas.to(self._job.threads):
            for start in range(0, len(order), batch_size):
                losses.append(self._make_step(order[start : start + batch_size], factor))
                if not np.isfinite(losses[-1]):
                    break
        return np.array(losses)

    def _make_step(self, batch: np.ndarray, factor: float) -> float:
        """One step, unless the loss is not finite; the loss before it."""
        if not all(np.isfinite(p).all() for p in self._params.values()):
            return float("nan")  # a Model cannot have such parameters
        model = self._job.model.with_params(self._params)
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that overflows is reported by its value
            x, y, name = self._x[batch], self._y[batch], self._job.loss
            if self._job.linearized:
                loss, grads = linear_loss_gradient(self._job.model, self._params, x, y, LOSSES[name])
            else:
                slopes = None if self._job.slopes is None else self._job.slopes.of(batch)
                loss, grads = loss_gradient(model, x, y, name, slopes)
        if not np.isfinite(loss):
            return loss
        self._step += 1
        scale = self._clip_scale(grads)
        for name, p in self._params.items():
            slots = {slot: arrays[name] for slot, arrays in self._slots.items()}
            # NumPy makes a number of an array without axes.
            update(self._job, p, np.asarray(grads[name] * scale), slots, self._job.rates[name] * factor, self._step)
        return loss

    def state(self) -> TrainState:
        """Copies."""
        return TrainState(
            {name: p.copy() for name, p in self._params.items()},
            {slot: {name: a.copy() for name, a in arrays.items()} for slot, arrays in self._slots.items()},
            self._step,
        )

    def _clip_scale(self, grads: Arrays) -> float:
        """min(1, limit / norm over all parameters together)."""
        if self._job.clip_norm is None:
            return 1.0
        norm = float(np.sqrt(sum(np.sum(g**2) for g in grads.values())))
        return self._job.clip_norm / norm if norm > self._job.clip_norm else 1.0


def update(job: TrainJob, p: np.ndarray, g: np.ndarray, slots: Arrays, lr: float, t: int) -> None:
    """One step of one parameter, in place; the formulas are those of `udlbridge.backends.optimisers.OPTIMISERS`."""
    name, s = job.optimizer.name, job.optimizer.settings
    if name == "adamw":
        p -= lr * s["weight_decay"] * p
    else:
        g = g + s["weight_decay"] * p
    if name == "sgd":
        p -= lr * g
    elif name in ("momentum", "nesterov"):
        v = slots["velocity"]
        v[...] = s["momentum"] * v + lr * g
        p -= v if name == "momentum" else s["momentum"] * v + lr * g
    elif name == "torch_momentum":
        v = slots["velocity"]
        v[...] = s["momentum"] * v + g
        p -= lr * v
    elif name in ("adam", "adamw"):
        m, v = slots["first"], slots["second"]
        m[...] = s["beta1"] * m + (1 - s["beta1"]) * g
        v[...] = s["beta2"] * v + (1 - s["beta2"]) * g**2
        p -= lr * (m / (1 - s["beta1"] ** t)) / (np.sqrt(v / (1 - s["beta2"] ** t)) + s["eps"])
    elif name == "rmsprop":
        v = slots["second"]
        v[...] = s["rho"] * v + (1 - s["rho"]) * g**2
        p -= lr * g / (np.sqrt(v) + s["eps"])
