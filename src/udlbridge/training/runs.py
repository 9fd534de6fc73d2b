"""`TrainingRun`: what a training gave, and everything that is needed to go on with it exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge.backends.jobs import TrainState
from udlbridge.backends.optimisers import OPTIMISERS
from udlbridge.displays import Displayed, draw
from udlbridge.errors import RunFileError
from udlbridge.kernels.request import as_network
from udlbridge.networks.files import read_safetensors, write_safetensors
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.layers import layer_from_spec
from udlbridge.networks.model import Model
from udlbridge.networks.specs import require_buffers
from udlbridge.paths import user_path
from udlbridge.texts import counted
from udlbridge.words import EngineName

RUN_FORMAT = 1
"""Version of the run file. It grows when an older reader could misread a newer file."""


@dataclass(frozen=True)
class EpochErrors:
    """Shares of wrongly classified samples after `epoch` epochs (0: before training); None where not known."""

    epoch: int
    train: float | None
    validation: float | None


@dataclass(frozen=True, eq=False, repr=False)
class TrainingRun(Displayed):
    """A training up to the end of an epoch.

    `losses` (steps,): mean loss of every batch before its step. `errors`: one entry for each epoch that was evaluated.
    `model`: the network at the end: a `Model`, or what `udlbridge.as_network` gives, whose `.module` is a trained copy
    of the module. `checkpoints`: networks by the number of epochs after which they were kept. `records`: by the name of
    a callback, its measurements stacked along the first axis, with the steps under "step". `plan`: the settings of the
    training, JSON- ready. `state`: parameters and optimiser. `seconds`: wall time, over all sittings. `versions`: of
    what computed.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 1)], dtype="float64")
        >>> run = ub.train(model, np.eye(2), np.ones((2, 1)), epochs=3, loss="mse", progress=False)
        >>> run.epochs, run.losses.shape, run.backend
        (3, (3,), 'torch')
    """

    model: Any
    losses: np.ndarray
    errors: tuple[EpochErrors, ...]
    checkpoints: Mapping[int, Any]
    records: Mapping[str, Mapping[str, np.ndarray]]
    plan: Mapping[str, Any]
    state: TrainState
    epochs: int
    backend: EngineName
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: everything but parameters and optimiser arrays."""
        return {
            "plan": dict(self.plan),
            "epochs": self.epochs,
            "backend": self.backend,
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "losses": self.losses.tolist(),
            "errors": [[e.epoch, e.train, e.validation] for e in self.errors],
            "records": {
                name: {key: value.tolist() for key, value in series.items()} for name, series in self.records.items()
            },
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run to one safetensors file: arrays as tensors, the rest as JSON in the metadata.

        Raises:
            RunFileError: the folder is missing, or the disk refuses.
        """
        tensors = {"losses": self.losses}
        tensors |= {f"state/{name}": value for name, value in self.model.arrays.items()}
        for slot, arrays in self.state.slots.items():
            tensors |= {f"slot/{slot}/{name}": value for name, value in arrays.items()}
        for epoch, model in self.checkpoints.items():
            tensors |= {f"checkpoint/{epoch}/{name}": value for name, value in model.arrays.items()}
        for callback, series in self.records.items():
            tensors |= {f"record/{callback}/{key}": value for key, value in series.items()}
        words = self.to_dict()
        del words["losses"], words["records"]
        about = {
            **words,
            "format": RUN_FORMAT,
            "model": self.model.spec(),
            "step": self.state.step,
            "slots": list(self.state.slots),
            "checkpoints": list(self.checkpoints),
            "records": {name: list(series) for name, series in self.records.items()},
        }
        write_safetensors(user_path(path), tensors, {"udlbridge_run": json.dumps(about)}, RunFileError)

    @staticmethod
    def load(path: str | os.PathLike[str], *, model: Any = None, output: Any = None) -> TrainingRun:
        """Read a run that `save` wrote. Nothing in the file can execute code.

        Args:
            path: the file.
            model: of a run of a PyTorch module: the module, in whatever state, since the file has its parameters alone.
                Of a run of a `Model` or a `Graph` the file has all of it; a network that is given must have the same
                layers or nodes.
            output: of the module, as for `udlbridge.as_network`.

        Raises:
            RunFileError: missing, truncated, of another program or of another format version; of a module that was not
                handed in, or of another network than the one that was.
        """
        source = user_path(path)
        about, tensors = _read(source)
        network = None if model is None else as_network(model, output=output)
        _check_network(about, network, source)
        try:
            return _assemble(about, tensors, network)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
            raise RunFileError(
                f"{path} does not hold a whole run ({type(error).__name__}: {error})",
                allowed="a file written by TrainingRun.save",
                remedy="save it again",
            ) from error

    def __str__(self) -> str:
        last = self.errors[-1] if self.errors else None
        lines = [
            f"{counted(self.epochs, 'epoch')}, {counted(len(self.losses), 'step')} on {self.backend}, "
            f"{self.seconds:.1f} s",
        ]
        if len(self.losses):
            lines.append(f"loss of the first and the last batch  {self.losses[0]:.4g}, {self.losses[-1]:.4g}")
        for words, rate in (("training", last and last.train), ("validation", last and last.validation)):
            if rate is not None:
                lines.append(f"{words} error at the end  {rate:.2%}")
        if self.records:
            lines.append("records  " + ", ".join(self.records))
        return "\n".join(lines)

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each row."""
        return [{"epoch": e.epoch, "training error": e.train, "validation error": e.validation} for e in self.errors]

    def plot(self, ax: Any = None) -> Any:
        """The loss by step with its means by epoch, on `ax` or a new figure; returns the Axes."""
        return draw("training:draw_losses", ax, self, self.backend)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    metadata, tensors = read_safetensors(path, "run", RunFileError)
    try:
        about = json.loads(metadata["udlbridge_run"])
        version = about["format"]
    except (KeyError, TypeError, ValueError, RecursionError):  # integers of thousands of digits, endless nesting
        hint = ": it is a model" if "udlbridge" in metadata else ""
        raise RunFileError(
            f"{path} is not the file of a training run{hint}",
            allowed="a file written by TrainingRun.save",
            remedy="Model.load reads models",
        ) from None
    if version != RUN_FORMAT:
        raise RunFileError(
            f"{path} has format version {version}", allowed=f"version {RUN_FORMAT}", remedy="update udlbridge"
        )
    return about, tensors


def _check_network(about: dict[str, Any], network: Any, path: Path) -> None:
    """Raise `RunFileError` for a run of a module that is not at hand, or of another network than the one given."""
    spec = about.get("model")
    if not isinstance(spec, dict):
        return  # said when the run is put together
    if "module" not in spec:
        if network is not None and json.loads(json.dumps(network.spec())) != spec:
            kind, parts = ("Graph", "nodes") if "nodes" in spec else ("Model", "layers")
            given = "a Model" if isinstance(network, Model) else f"a {network.name}"
            raise RunFileError(
                f"{path} is a run of a {kind}, and model= is {given}{f' of other {parts}' * (given == f'a {kind}')}",
                allowed=f"no network, since the file has {parts} and parameters; or a {kind} of the same {parts}",
                remedy="leave out model=, or name the file of that network's run",
            )
        return
    if not isinstance(network, ForeignNetwork):
        raise RunFileError(
            f"{path} is a run of a PyTorch module ({spec['module']}), of which it has the parameters alone",
            allowed="that module, in whatever state",
            remedy="hand it in: TrainingRun.load(path, model=module)",
        )
    if network.spec() != spec:
        raise RunFileError(
            f"{path} is a run of {spec}, given is {network.spec()}",
            allowed="a module of the same class, with parameters of the same names and shapes",
            remedy="hand in the module that was trained",
        )


def _assemble(about: dict[str, Any], tensors: dict[str, np.ndarray], network: Any) -> TrainingRun:
    foreign, graph = "module" in about["model"], "nodes" in about["model"]
    layers = [] if foreign or graph else [layer_from_spec(layer) for layer in about["model"]["layers"]]
    dtype = about["model"]["dtype"]

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    def model(prefix: str) -> Any:
        arrays = part(prefix)
        if foreign:
            return network.with_params(arrays)
        if graph:
            return Graph.from_spec(json.dumps(about["model"]), arrays, "the graph of the run")
        require_buffers(layers, arrays, prefix)
        return Model(layers, arrays, dtype=dtype)

    last = model("state/")
    _check_whole(about, tensors, last)
    return TrainingRun(
        model=last,
        losses=tensors["losses"],
        errors=tuple(EpochErrors(*row) for row in about["errors"]),
        checkpoints={epoch: model(f"checkpoint/{epoch}/") for epoch in about["checkpoints"]},
        records={
            name: {key: tensors[f"record/{name}/{key}"] for key in keys} for name, keys in about["records"].items()
        },
        plan=about["plan"],
        state=TrainState(
            dict(last.params),
            {slot: {name: tensors[f"slot/{slot}/{name}"] for name in last.params} for slot in about["slots"]},
            about["step"],
        ),
        epochs=about["epochs"],
        backend=about["backend"],
        seconds=about["seconds"],
        versions=about["versions"],
    )


def _check_whole(about: dict[str, Any], tensors: dict[str, np.ndarray], model: Any) -> None:
    """Raise `ValueError` where the parts of a run do not belong together: going on from it would go wrong silently."""
    plan, step, epochs = about["plan"], about["step"], about["epochs"]
    missing = {"model", "data", "batch_size", "optimizer"} - set(plan if isinstance(plan, dict) else ())
    if missing:
        raise ValueError(f"its plan has no {', '.join(sorted(missing))}")
    steps = epochs * -(-plan["data"]["n"] // plan["batch_size"])
    if step != steps or tensors["losses"].shape != (steps,):
        raise ValueError(f"{epochs} epochs are {steps} steps, and it has {step} with losses {tensors['losses'].shape}")
    slots = list(OPTIMISERS[plan["optimizer"]["name"]].slots) if step else []
    if sorted(about["slots"]) != sorted(slots):
        raise ValueError(f"the optimiser has the slots {slots}, and the file {about['slots']}")
    for slot in slots:
        for name, value in model.params.items():
            found = tensors[f"slot/{slot}/{name}"]
            if (found.shape, found.dtype) != (value.shape, value.dtype):
                raise ValueError(f"slot {slot} of {name} is {found.dtype} {found.shape}")
    for name, keys in about["records"].items():
        if len({len(tensors[f"record/{name}/{key}"]) for key in keys}) > 1:
            raise ValueError(f"the measurements of {name} are of different length")
