"""Training in PyTorch: autograd and torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int
from torch import Tensor

from udlbridge.backends.base import Training
from udlbridge.backends.jobs import Slopes, TrainJob, TrainState
from udlbridge.backends.optimisers import Optimiser
from udlbridge.backends.pytorch.devices import blas_threads, checked_device
from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.modules import ModuleNetwork
from udlbridge.backends.pytorch.operator import expand
from udlbridge.backends.pytorch.tensors import (
    Params,
    array,
    differentiating,
    evaluate,
    gradients,
    tensor,
    tensors,
)
from udlbridge.backends.pytorch.watching import undisturbed

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nnf.mse_loss,
    "cross_entropy": nnf.cross_entropy,
    "binary_cross_entropy": nnf.binary_cross_entropy_with_logits,
}
"""torch's function for every loss; targets are (n, O) for all of them."""

SLOTS: dict[str, dict[str, str]] = {
    "sgd": {},
    "momentum": {"velocity": "momentum_buffer"},
    "torch_momentum": {"velocity": "momentum_buffer"},
    "nesterov": {"velocity": "momentum_buffer"},
    "adam": {"first": "exp_avg", "second": "exp_avg_sq"},
    "adamw": {"first": "exp_avg", "second": "exp_avg_sq"},
    "rmsprop": {"second": "square_avg"},
}
"""What torch.optim calls each slot."""


def loss_gradient(
    model: Any, x: np.ndarray, y: Float[np.ndarray, "n outputs"], loss: str, slopes: Slopes | None = None
) -> tuple[float, dict[str, np.ndarray]]:
    """The mean loss of a batch and its gradient, by one backward pass."""
    with undisturbed():
        device = model.device if isinstance(model, ModuleNetwork) else "cpu"
        params, data, targets = _leaves(model.params, device), _data(model, x, device), tensor(y, device)
        if slopes is None:
            value = LOSSES[loss](_outputs(model, params, data), targets)
        else:
            value = sobolev(model, params, data, targets, tensor(slopes.values, device), slopes.weight)
        found = gradients(value, list(params.values()))
    both = zip(params.items(), found, strict=True)
    dense = {name: torch.zeros_like(p) if g is None else g.to_dense() for (name, p), g in both}
    return value.item(), {name: array(g) for name, g in dense.items()}


def _data(model: Any, x: np.ndarray, device: str) -> Inputs:
    """The samples by the names of inputs; "" is the only one."""
    return model.inputs(x, device) if isinstance(model, ModuleNetwork) else {"": tensor(x, device)}


def _outputs(model: Any, params: Params, data: Inputs) -> Tensor:
    """f(x), (n, O), of a `Model` or a module with these parameters."""
    if isinstance(model, ModuleNetwork):
        return model.evaluate(params, data)[0].to(model.dtypes.kernel)
    return evaluate(model, params, data[""])


def sobolev(model: Any, params: Params, inputs: Inputs, y: Tensor, slopes: Tensor, weight: float) -> Tensor:
    """The mean over samples of sum (f - y)^2 + weight sum (df/dx - slopes)^2; what is NaN was not observed.

    The slopes are backward passes that keep their graph, so that the gradient goes backwards through them.
    """
    data = inputs[""].detach().requires_grad_()
    f = _outputs(model, params, {"": data})
    total = _squares(f, y)
    for a in range(f.shape[1]):
        (slope,) = torch.autograd.grad(
            f[:, a].sum(), data, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = total + weight * _squares(slope, slopes[:, a])
    return total / len(data)


def _squares(found: Tensor, wanted: Tensor) -> Tensor:
    """The sum of (found - wanted)^2 where something is wanted; NaN must not enter, nor its derivative."""
    seen = ~wanted.isnan()
    return ((found[seen] - wanted[seen]) ** 2).sum()


class TorchTraining(Training):
    """Parameters are leaves, one torch.optim parameter group for each learning rate.

    For momentum and nesterov, torch remembers a sum of gradients and multiplies it by the present rate; Flux, whose
    definition is followed, remembers steps, each with the rate of its time. So these two give torch gradients that are
    multiplied by the rate already, and a rate of 1. While the rate does not change the two are the same.
    """

    def __init__(self, job: TrainJob, x: np.ndarray, y: Float[np.ndarray, "n outputs"], state: TrainState) -> None:
        device = checked_device(job.device)
        self._job = job
        self._params = _leaves(state.params, device)
        self._x, self._y = _data(job.model, x, device), tensor(y, device)
        self._slopes = None if job.slopes is None else tensor(job.slopes.values, device)
        self._start = tensors(job.model, device) if job.linearized else None
        self._step = state.step
        self._scaled = job.optimizer.name in ("momentum", "nesterov")
        rates = sorted(set(job.rates.values()))
        groups = [[name for name in self._params if job.rates[name] == rate] for rate in rates]
        self._optimizer = _build(job.optimizer, [[self._params[name] for name in group] for group in groups])
        self._rates = rates
        if state.slots:
            self._restore(state)

    def epoch(self, order: Int[np.ndarray, " samples"], batch_size: int, factor: float) -> Float[np.ndarray, " steps"]:
        """One pass over `order`."""
        self._set_rates(factor)
        indices = torch.from_numpy(np.ascontiguousarray(order)).to(self._y.device)
        losses: list[float] = []
        with blas_threads(self._job.threads), undisturbed():
            for batch in torch.split(indices, batch_size):
                loss = self._loss(batch)
                losses.append(loss.item())
                if not np.isfinite(losses[-1]):
                    break
                self._optimizer.zero_grad(set_to_none=True)
                with differentiating():
                    loss.backward()  # type: ignore[no-untyped-call]
                self._change_gradients()
                self._optimizer.step()
                self._step += 1
        return np.array(losses)

    def state(self) -> TrainState:
        """Copies of the parameters and of torch.optim's buffers."""
        slots = {
            slot: {name: self._buffer(name, p, key) for name, p in self._params.items()}
            for slot, key in SLOTS[self._job.optimizer.name].items()
        }
        return TrainState({name: _copy(p) for name, p in self._params.items()}, slots, self._step)

    def _loss(self, batch: Tensor) -> Tensor:
        model, params, y = self._job.model, self._params, self._y[batch]
        x = {name: value[batch] for name, value in self._x.items()}
        if self._slopes is not None and self._job.slopes is not None:
            return sobolev(model, params, x, y, self._slopes[batch], self._job.slopes.weight)
        if self._start is not None:
            moves = {name: p - self._start[name] for name, p in params.items()}
            return LOSSES[self._job.loss](expand(lambda p: _outputs(model, p, x), self._start, moves, 1), y)
        return LOSSES[self._job.loss](_outputs(model, params, x), y)

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["rate"] = rate * factor
            group["lr"] = 1.0 if self._scaled else rate * factor

    @torch.no_grad()
    def _change_gradients(self) -> None:
        """Clip by the global norm; then, where torch.optim does not do it, decay and multiply by the rate."""
        for p in self._params.values():
            if p.grad is not None and p.grad.is_sparse:  # as those of tables may be, which not every optimiser takes
                p.grad = p.grad.to_dense()
        limit = self._job.clip_norm
        if limit is not None:
            gradients = [p.grad for p in self._params.values() if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
            # torch's clip_grad_norm_ adds 1e-6 to the norm, which is not the formula.
            if norm > limit:
                for g in gradients:
                    g.mul_(limit / norm)
        if self._scaled:
            decay = self._job.optimizer.settings["weight_decay"]
            for group in self._optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.add_(p, alpha=decay).mul_(group["rate"])

    def _buffer(self, name: str, p: Tensor, key: str) -> np.ndarray:
        buffer = self._optimizer.state[p].get(key)  # None before the first step
        return np.zeros(p.shape, dtype=self._job.model.dtype) if buffer is None else _copy(buffer)

    def _restore(self, state: TrainState) -> None:
        for name, p in self._params.items():
            own = self._optimizer.state[p]
            for slot, key in SLOTS[self._job.optimizer.name].items():
                own[key] = torch.tensor(state.slots[slot][name], device=p.device)
            if self._job.optimizer.name in ("adam", "adamw", "rmsprop"):
                own["step"] = torch.tensor(float(state.step))


def _build(optimizer: Optimiser, groups: list[list[Tensor]]) -> torch.optim.Optimizer:
    """torch.optim's object. Learning rates are set before every epoch."""
    s = optimizer.settings
    parameters = [{"params": group} for group in groups]
    if optimizer.name == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, weight_decay=s["weight_decay"])
    if optimizer.name == "torch_momentum":
        return torch.optim.SGD(parameters, lr=0.0, momentum=s["momentum"], weight_decay=s["weight_decay"])
    if optimizer.name in ("momentum", "nesterov"):
        # torch refuses nesterov with a momentum of 0, where the two are plain descent.
        nesterov = optimizer.name == "nesterov" and s["momentum"] > 0
        return torch.optim.SGD(parameters, lr=1.0, momentum=s["momentum"], nesterov=nesterov)
    if optimizer.name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=0.0, alpha=s["rho"], eps=s["eps"], weight_decay=s["weight_decay"])
    adam = torch.optim.AdamW if optimizer.name == "adamw" else torch.optim.Adam
    return adam(parameters, lr=0.0, betas=(s["beta1"], s["beta2"]), eps=s["eps"], weight_decay=s["weight_decay"])


def _leaves(params: Mapping[str, np.ndarray], device: str) -> dict[str, Tensor]:
    return {name: torch.tensor(value, device=device, requires_grad=True) for name, value in params.items()}


def _copy(value: Tensor) -> np.ndarray:
    return np.array(value.detach().cpu().numpy())
