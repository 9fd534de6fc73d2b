"""`train`: the loop over epochs, the same for every engine; the steps are the engine's own."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge import backends
from udlbridge.atomic import check_target
from udlbridge.backends.jobs import TrainJob
from udlbridge.backends.optimisers import checked_optimizer, group_rates
from udlbridge.calls import explained
from udlbridge.errors import NumericalError, OptionError, RunFileError
from udlbridge.kernels.finite import check_finite
from udlbridge.kernels.request import as_network, check_curvature, checked_device, checked_engine
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import checked_samples, output_size
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, checked_flag, checked_not_negative, thread_count
from udlbridge.paths import user_path
from udlbridge.progress import progress_bar
from udlbridge.training.endings import objective
from udlbridge.training.ledger import Ledger
from udlbridge.training.objectives import (
    Loss,
    Sobolev,
    check_several_classes,
    checked_loss,
    checked_slopes,
    checked_targets,
)
from udlbridge.training.plans import (
    Plan,
    checked_callbacks,
    checked_checkpoints,
    checked_data,
    checked_orders,
    checked_pair,
    describe,
    take_over,
)
from udlbridge.training.probes import Callback
from udlbridge.training.runs import TrainingRun
from udlbridge.training.schedules import checked_schedule
from udlbridge.training.trainer import Trainer
from udlbridge.words import EngineName, EngineWord, OptimizerWord


def loss_gradient(
    model: Model | Any,
    x: Any,
    y: Any,
    *,
    loss: Loss = "cross_entropy",
    backend: EngineWord | None = None,
    output: Any = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """The mean loss of a batch, and its derivative with respect to every parameter.

    Args:
        model, x, y, loss, backend, output: as for `train`.

    Returns:
        The loss, and an array of each parameter's shape by its name.

    Raises:
        As `train`; NumericalError where the loss or a derivative is not finite.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 1)], dtype="float64")
        >>> loss, gradient = ub.loss_gradient(model, np.eye(2), ub.outputs(model, np.eye(2)), loss="mse")
        >>> loss, sorted(gradient)
        (0.0, ['0.bias', '0.weight'])
    """
    model = as_network(model, output=output)
    name = checked_engine(model, backend)
    if isinstance(model, ForeignNetwork):
        model.check_training()
    batch = checked_samples(model, x)
    _check_followed(model, loss, name)
    computed = objective(model, checked_loss(loss), batch)
    targets = checked_targets(computed.loss, y, len(batch), output_size(model, batch.shape[1:]), model.dtype)
    slopes = checked_slopes(loss, targets, batch, model.dtype) if isinstance(loss, Sobolev) else None
    value, gradient = backends.get(name).loss_gradient(computed.model, batch, targets, computed.loss, slopes)
    if not math.isfinite(value):
        raise NumericalError(
            f"the loss is {value}", allowed="a finite loss", remedy="look for outputs that are not finite, or far off"
        )
    for parameter, block in gradient.items():
        check_finite(block, f"the gradient by {parameter}", (0,) * block.ndim)
    return value, gradient


@explained(
    lr='a learning rate is a setting of the optimizer: optimizer=("sgd", {"lr": 0.1})',
    learning_rate='it is a setting of the optimizer: optimizer=("sgd", {"lr": 0.1})',
    momentum='it is a setting of the optimizer: optimizer=("momentum", {"lr": 0.1, "momentum": 0.9})',
    weight_decay='it is a setting of the optimizer: optimizer=("sgd", {"lr": 0.1, "weight_decay": 0.01})',
    epochs="say how many passes over the samples, as epochs=10",
    positional="give the options by name, as epochs=3",
)
def train(
    model: Model | Any,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    backend: EngineWord | None = None,
    loss: Loss = "cross_entropy",
    optimizer: OptimizerWord | tuple[OptimizerWord, Mapping[str, Any]] = ("sgd", {"lr": 0.01}),
    seed: int = 0,
    orders: np.ndarray | None = None,
    lr_groups: Mapping[str, float] | None = None,
    schedule: Any = None,
    clip_norm: float | None = None,
    linearized: bool = False,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    evaluate_every: int = 1,
    checkpoints: Sequence[int] = (),
    callbacks: Sequence[Callback] = (),
    resume: TrainingRun | str | os.PathLike[str] | None = None,
    save_to: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    threads: int | None = None,
    device: Any = None,
    output: Any = None,
) -> TrainingRun:
    """Train a network by minibatch descent; the same batches in the same order on every engine.

    The network is evaluated in inference mode here too: Dropout passes everything on, and BatchNorm keeps its
    statistics.

    Args:
        model: where training starts; it is not changed. Of a `torch.nn.Module`, in evaluation mode, those parameters
            are trained that require a gradient; the run's `model.module` is a trained copy. Of a `Graph` the parameters
            are trained, and the buffers stay; one that several operations take is one parameter.
        x: samples (n, *D), of the model's dtype.
        y: class numbers (n,), or targets (n, O); see `udlbridge.training.objectives.checked_targets`.
        epochs: passes over the samples, counted from the start of the run (also of one that is resumed).
        batch_size: samples in a batch; the last of an epoch may be smaller. None means all.
        backend: "torch", "julia" or "reference"; None is the default of `udlbridge.backends.default_name`.
        loss: "mse" (mean over all entries); "cross_entropy" or "binary_cross_entropy", both of logits; "nll", the
            negative log likelihood, of a network that ends in Softmax, LogSoftmax or a sigmoid, and so gives
            probabilities: its value is that of the cross-entropy of the logits; or
            `udlbridge.udl.losses.sobolev(slopes)`, for values of some samples and input
            derivatives of others.
        optimizer: a name, or (name, settings), as ("adam", {"lr": 0.01, "betas": (0.9, 0.999)}); the registry is
            `udlbridge.backends.optimisers.OPTIMISERS`.
        seed: of the order of the samples, which NumPy draws anew for every epoch.
        orders: their order itself, whole numbers (at least `epochs`, n): a permutation of the samples for each epoch,
            as another program drew it; the seed is then without effect. None leaves the order to the seed.
        lr_groups: learning rates by glob pattern on parameter names; the first match counts, and the optimiser's lr
            serves the rest: {"0.*": 1e-3} slows the first layer.
        schedule: None, ("step", {"every": 2, "factor": 0.5}) or ("cosine", {"epochs": 10, "floor": 0.0}): a factor on
            all learning rates, for each epoch.
        clip_norm: gradients are multiplied by min(1, clip_norm / their norm over all parameters together).
        linearized: train f(x) + J(x) (theta - theta_0), the network linearised at its start, in place of the network.
            The run's model holds theta: `udlbridge.linearize(model).outputs(run.model, x)` are its outputs.
        validation: (x, y) whose error rate is reported too.
        evaluate_every: epochs between two evaluations of the error rates; 0 means never.
        checkpoints: epochs after which the model is kept in the run; 0 is the start. Those after `epochs` are for the
            time when the run is resumed.
        callbacks: measurements in the course of training, as `udlbridge.Probe`.
        resume: a run, or its file, to go on from; all other settings must be those of that run, its data, validation
            data and callbacks too. The engine may differ.
        save_to: file to which the run is saved after every epoch. One that is there must be the run to `resume`.
        overwrite: `save_to` may be another file that exists.
        progress: a bar with loss, error and remaining time; None shows it on a terminal.
        threads: for the engine's BLAS; None leaves it alone.
        device: where torch computes: "cpu", "cuda", "mps"; None is where the module is, and the CPU for a `Model`.
        output: which of the outputs of a module counts, as for `udlbridge.as_network`.

    Returns:
        The run. On the same engine, a run that was resumed equals one that was not interrupted, bit for bit.

    Raises:
        TrainingDiverged: a loss or a parameter is no longer finite, or a callback's measurement is no longer defined;
            `.run` is the run up to the last good epoch.
        OptionError: a setting that does not exist or does not fit, as a pattern that matches nothing; a cross-entropy
            of probabilities, to which softmax or sigmoid would be applied a second time.
        RunFileError: `resume` belongs to another model, or was made with other settings; `save_to` cannot be written,
            or exists.
        InputError, ShapeError, DTypeError: what is wrong with `x` and `y`.
        UnknownBackend, BackendUnavailable: what is wrong with `backend`.

    Examples:
        >>> model, x = ub.Model([ub.Dense(2, 1)], dtype="float64"), np.eye(2)
        >>> run = ub.train(model, x, x[:, :1], epochs=100, loss="mse", optimizer=("sgd", {"lr": 0.5}), progress=False)
        >>> bool(run.losses[-1] < 1e-6)
        True
    """
    model = as_network(model, output=output)
    if save_to is not None:
        _check_place(user_path(save_to), resume, overwrite=checked_flag("overwrite", overwrite))
    name = checked_engine(model, backend)
    device = checked_device(model, name, device)
    optimiser = checked_optimizer(optimizer)
    rates = group_rates(list(model.params), optimiser.settings["lr"], lr_groups)
    if not model.params:
        raise OptionError("a model without parameters", allowed="at least one layer with some", remedy="add one")
    clip = None if clip_norm is None else checked_not_negative("clip_norm", clip_norm)
    if clip == 0:
        raise OptionError("clip_norm=0", allowed="a number above 0, or None", remedy="use None to leave it out")
    threads = thread_count(threads)
    linearized = checked_flag("linearized", linearized)
    job = TrainJob(model, checked_loss(loss), optimiser, rates, clip, threads, device, linearized=linearized)
    if isinstance(model, ForeignNetwork):
        model.check_training()
    if linearized:
        check_linear(model, job.loss, callbacks)
    data = checked_data(job, x, y)
    _check_followed(model, loss, name)
    if isinstance(loss, Sobolev):
        job = replace(job, slopes=checked_slopes(loss, data.y, data.x, model.dtype))
    computed = objective(model, job.loss, data.x)
    check_several_classes(computed.loss, data.y)
    held_out = None if validation is None else checked_data(job, *checked_pair(validation), "validation ")
    plan = Plan(
        epochs=checked_count("epochs", epochs, 0),
        batch_size=len(data.x) if batch_size is None else min(checked_count("batch_size", batch_size, 1), len(data.x)),
        seed=checked_count("seed", seed, 0),
        schedule=checked_schedule(schedule),
        evaluate_every=checked_count("evaluate_every", evaluate_every, 0),
        checkpoints=checked_checkpoints(checkpoints),
        callbacks=checked_callbacks(callbacks),
        orders=checked_orders(orders, len(data.x), checked_count("epochs", epochs, 0)),
    )
    engine = backends.get(name)
    versions = {"udlbridge": metadata.version("udlbridge"), **engine.versions()}
    ledger = Ledger(describe(job, plan, data, held_out), name, versions, model)
    if resume is not None:
        take_over(ledger, resume, plan, model)
    native = replace(job, model=computed.model, loss=computed.loss)
    session = engine.training(native, data.x, data.y, ledger.state)
    trainer = Trainer(job, plan, engine, session, data, held_out, ledger, save_to)
    with progress_bar(f"training ({name})", ledger.epochs, plan.epochs, progress) as show:
        trainer.begin(fresh=resume is None)
        while ledger.epochs < plan.epochs:
            trainer.run_epoch(show)
    run = ledger.run()
    if save_to is not None and resume is not None:
        run.save(save_to)  # a run that was complete already had no epoch to save it after
    return run


def _check_place(path: Path, resume: TrainingRun | str | os.PathLike[str] | None, *, overwrite: bool) -> None:
    """Find out before training whether the run can be saved to a file. Raises `RunFileError` if not."""
    check_target(path, RunFileError)
    # A run in memory may be that of the file; a run of another training is found out when it is taken over.
    own = isinstance(resume, TrainingRun) or (
        resume is not None and os.path.realpath(user_path(resume)) == os.path.realpath(path)
    )
    if path.is_file() and not (own or overwrite):
        raise RunFileError(
            f"save_to={str(path)!r}: {path.name} exists",
            allowed="a new file, or that of the run to resume",
            remedy="add overwrite=True to lose what is there, or resume= to go on with it",
        )


def check_linear(model: Model | ForeignNetwork, loss: str, callbacks: Sequence[Callback]) -> None:
    """Raise `OptionError` for what a linearised network does not have."""
    if isinstance(model, ForeignNetwork) and not isinstance(model, Graph):
        raise OptionError(
            f"linearized=True with a module ({model.name})",
            allowed="linearized=True with a udlbridge.Model or Graph",
            remedy="translate it: ub.from_torch(module, x); or take ub.predict.gradient_descent on its kernel",
        )
    if loss in ("sobolev", "nll"):
        raise OptionError(
            f'loss="{loss}" of a linearised network',
            allowed="mse, cross_entropy, binary_cross_entropy",
            remedy="take values alone" if loss == "sobolev" else "leave out the last Softmax, with cross_entropy",
        )
    if callbacks:
        raise OptionError(
            "callbacks with linearized=True",
            allowed="none: they would measure the network, whose parameters the linearised one only borrows",
            remedy="its kernel is that of the start, always; its outputs are ub.linearize(model).outputs(run.model, x)",
        )


def _check_followed(model: Any, loss: Loss, engine: EngineName) -> None:
    """Refuse somebody's own network that has no derivatives to train by. Raises `ConversionError`, `OptionError`."""
    if isinstance(model, ForeignNetwork):
        model.check_derivatives(model.param_shapes())
        if isinstance(loss, Sobolev):
            model.check_input_derivatives()
            check_curvature(model, engine)
