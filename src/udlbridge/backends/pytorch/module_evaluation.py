"""Evaluating a module on private copies: its parameters and samples as tensors, looked at before they are believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends.pytorch.checks import check_inference
from udlbridge.backends.pytorch.copies import private_copy, tensors_inside
from udlbridge.backends.pytorch.devices import full_float32, without_cudnn
from udlbridge.backends.pytorch.findings import Finding
from udlbridge.backends.pytorch.layouts import FEW, MORE
from udlbridge.backends.pytorch.module_inputs import Dtypes, Inputs, arguments, packed, takes_numbers, unpacked
from udlbridge.backends.pytorch.module_outputs import Choice, output_tensor
from udlbridge.backends.pytorch.module_sites import Evaluation, Params, followed
from udlbridge.backends.pytorch.module_trials import Trial, check_same
from udlbridge.backends.pytorch.module_values import check_values, own, unwrapped
from udlbridge.backends.pytorch.watching import Watching, undisturbed
from udlbridge.errors import ConversionError, InputError
from udlbridge.networks.foreign import wants_tokens

SPREAD = 8
"""Samples of a batch, from the last to the first, by which it is seen whether forward moves samples."""

MANY = 32
"""Among so many samples, it is unlikely that the two of a trial see there what they see of each other."""


class ModuleEvaluation:
    """A `torch.nn.Module` that is neither moved nor changed, as a function of parameters and samples.

    It is looked at when samples come: which shapes it takes and gives shows on them, and where it got other parameters,
    or other ones are frozen, it is read anew. The parameters are those that require a gradient, shared ones once.

    Args:
        module: in inference mode, or such that its mode makes no difference.
        output: which of its outputs counts, where it gives several.

    Raises:
        ConversionError: parameters without numbers, none to train, BatchNorm or Dropout in training mode.
    """

    def __init__(self, module: nn.Module, output: Choice = None) -> None:
        self.module = unwrapped(module)
        self._output = output
        self._read()

    def _read(self) -> None:
        """Look at the module as it is: its parameters, its other tensors, and nothing of samples yet."""
        check_inference(self.module)
        check_values(self.module)
        every = dict(self.module.named_parameters(remove_duplicate=False))
        self._seen = _held(self.module)
        first = {id(value): name for name, value in reversed(every.items())}
        self._aliases = {name: first[id(value)] for name, value in every.items()}
        self._parameters = {name: value for name, value in every.items() if self._aliases[name] == name}
        self.trainable = tuple(name for name, value in self._parameters.items() if value.requires_grad)
        if not self.trainable:
            raise ConversionError(
                "the module has no trainable parameters",
                allowed="at least one",
                remedy="call requires_grad_(True)" if self._parameters else "give a network with weights",
            )
        every_value = (*self._parameters.values(), *self.module.buffers())
        floats = [value.dtype for value in every_value if value.is_floating_point()]
        self.dtypes = Dtypes(frozenset(floats))
        others = {id(value): value for value in tensors_inside(self.module)}
        self._state = [value for value in others.values() if not isinstance(value, nn.Parameter)]
        self._frozen: dict[str, dict[int, Tensor]] = {}
        self._generators: dict[int, Any] = {}
        self._examples: np.ndarray | None = None
        self._back = np.empty(0)  # more of them, from the last to the first
        self._outputs = 0
        self._tables: Mapping[str, int] = {}
        # What was seen last when samples were tried, and these, for those who look for sites next.
        self._trial: tuple[Evaluation, np.ndarray] | None = None
        # A trial whose samples are to be seen in a batch, in place of each alone.
        self._owed: Trial | None = None

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.module).__name__

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of kernels: that of the parameters, of half precision float32."""
        return np.dtype(str(self.dtypes.kernel).removeprefix("torch."))

    @property
    def device(self) -> str:
        """Where its first parameter is, and where it is tried out; kernels may be computed on another."""
        return str(next(iter(self._parameters.values())).device)

    @property
    def n_outputs(self) -> int:
        """O, as far as samples have come."""
        return self._outputs

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every trainable parameter by name."""
        return {name: tuple(self._parameters[name].shape) for name in self.trainable}

    @property
    def computes_in(self) -> str:
        """The dtype of the parameters, where that is one half precision."""
        half = self.dtypes.half
        return self.dtype.name if half is None else str(half).removeprefix("torch.")

    @property
    def takes_tokens(self) -> bool:
        """Whether there are no derivatives by the samples, as far as they are known."""
        return self._examples is not None and not takes_numbers(self._examples)

    @property
    def takes_several(self) -> bool:
        """Whether samples are several inputs, as far as they are known."""
        return self._examples is not None and self._examples.dtype.names is not None

    @undisturbed()
    def checked_batch(self, x: Any, name: str) -> np.ndarray:
        """The samples as an array, with a field for each of several inputs; the first ones are evaluated, and checked.

        Raises:
            InputError, ShapeError, DTypeError: what is wrong with them.
            ConversionError: outputs that are random, depend on other samples, or are not a tensor of real numbers.
        """
        return self._checked(x, name, passing=False)

    @undisturbed()
    def checked_passing(self, x: Any, name: str) -> np.ndarray:
        """As `checked_batch`, for samples that pass next, all of them: `check_passed` sees them then.

        Where the graph of two is known, and there are many others, these are not evaluated alone too: that they have
        the same outputs among the others, and in another order, says as much.
        """
        self._owed = None
        return self._checked(x, name, passing=self.device == "cpu")

    def check_passed(self, x: np.ndarray, y: Tensor, params: Params) -> None:
        """Hold the outputs y (n, O) of a part of a batch, by `params`, against those of the trial that it owes.

        Raises:
            ConversionError: outputs that are random, or depend on other samples.
        """
        owed = self._owed  # read once: another thread may begin anew meanwhile
        if owed is not None:
            owed.check_among(x, y, lambda some: self.evaluate(params, self.inputs(some, self.device))[0])

    def check_owed(self) -> None:
        """For samples that do not pass together after all: evaluate those of the trial alone.

        Raises:
            ConversionError: outputs that are random, or depend on other samples.
        """
        owed, self._owed = self._owed, None
        if owed is not None:
            owed.check_alone()

    def _checked(self, x: Any, name: str, *, passing: bool) -> np.ndarray:
        if self._seen != _held(self.module):  # a layer was replaced, or a parameter frozen
            self._read()
        check_inference(self.module)
        batch = packed(x, name, self.dtypes)
        if self._examples is not None:
            check_same(batch, self._examples, name)
        samples = sorted({0, len(batch) // 2, len(batch) - 1})
        params = self.tensors(self.device)
        counted = followed(params, self.trainable)

        def evaluate(some: np.ndarray) -> tuple[Tensor, Watching]:
            inputs = self.inputs(some, self.device)
            try:
                return self.evaluate(counted, inputs, tables=True)
            except RuntimeError:  # some can be evaluated only where no parameter is followed
                return self.evaluate(params, inputs, tables=True)

        def tried(chosen: list[int]) -> tuple[Evaluation, Trial]:
            trial = Trial.of(self.name, evaluate, batch, chosen, name)
            return Evaluation(self.trainable, counted, trial.y, trial.watching), trial

        finding = self._found_before(batch) if len(samples) == MORE else None
        with full_float32():
            # Where the graph of two samples is known, a third one says no more of it.
            seen, trial = tried(samples if finding is None else [samples[-1], samples[0]])
            if finding is not None and not finding.is_alike(*seen.read(finding.recipe.varying), FEW):
                finding = None
                seen, trial = tried(samples)
            if finding is not None and passing and len(batch) >= MANY:
                self._owed = trial
            else:
                trial.check_alone()
        self._outputs, self._tables = trial.y.shape[1], trial.watching.tables
        if self._examples is None:
            self._examples = batch[(samples * MORE)[:MORE]]
            self._back = batch[np.linspace(len(batch) - 1, 0, SPREAD).round().astype(int)]
        self._trial = (seen, trial.samples) if len(samples) == MORE and trial.y.requires_grad else None
        return batch

    def _found_before(self, batch: np.ndarray) -> Finding | None:
        """What is known of its sites for samples like these, if anything was kept."""
        return None

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Of one sample, as far as samples have come; of several inputs ()."""
        return None if self._examples is None else self._examples.shape[1:]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(O,), for samples like those that have come."""
        return (self._outputs,)

    def random_batch(self, shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
        """Random samples: drawn from those that came, or numbers, or where it takes none, tokens of its table."""
        generator = np.random.default_rng(seed)
        if self._examples is not None:
            return self._examples[generator.integers(0, len(self._examples), size=n)]
        numbers = generator.standard_normal((n, *shape)).astype(self.dtype)
        try:
            return self.checked_batch(numbers, "x")
        except InputError as error:
            try:
                zeros = self.checked_batch(np.zeros((n, *shape), dtype=np.int64), "x")
            except InputError as other:  # of two errors, the one of what it takes
                raise (other if wants_tokens(error) else error) from None
        if "" not in self._tables:
            return zeros
        self._examples = None  # samples that are all equal say little
        return self.checked_batch(generator.integers(0, self._tables[""], size=(n, *shape)), "x")

    def tensors(self, device: str) -> dict[str, Tensor]:
        """The trainable parameters as tensors of their own, on a device; evaluations then take the others as of now.

        Nothing in torch tells of every write to a parameter, so what is computed begins with fresh copies of them all.
        """
        self._frozen, self._trial = {}, None
        return {name: own(self._parameters[name], device) for name in self.trainable}

    @undisturbed()
    def inputs(self, x: np.ndarray, device: str) -> Inputs:
        """The samples as tensors, by name."""
        return unpacked(x, self.dtypes, device)

    def evaluate(
        self,
        params: Params,
        inputs: Inputs,
        *,
        tables: bool = False,
        show: Callable[[nn.Module], None] | None = None,
    ) -> tuple[Tensor, Watching]:
        """Outputs (n, O), with the axes after the first in C order, of a copy of the module with these parameters.

        `tables`: note which inputs are looked up in which tables. `show`: is shown the copy before.
        """
        device = next(iter(params.values())).device
        stand_ins = {id(self._parameters[name]): value for name, value in params.items()}
        stand_ins |= self._frozen_values(str(device))
        # Buffers and the like are copied: a module that overwrites its own starts from the same ones each time.
        state = {id(value): own(value, device) for value in self._state}
        copied = private_copy(self.module, stand_ins | state, self._generators)
        # As are inputs: whoever evaluates again, or asks for derivatives by them, wants them as they were.
        inputs = {field: value.clone() for field, value in inputs.items()}
        watched = {value.data_ptr(): field for field, value in inputs.items()} if tables else {}
        watching = Watching(stand_ins, [*stand_ins.values(), *state.values()], watched)
        args, words = arguments(inputs)
        if show is not None:
            show(copied)
        with undisturbed(), _differentiable(copied, device), watching:
            y = copied(*args, **words)
        n = len(next(iter(inputs.values())))
        return output_tensor(y, n, self._output, self.name), watching

    def _frozen_values(self, device: str) -> dict[int, Tensor]:
        """Parameters that are not trained, by the `id` of the caller's, as they were when `tensors` was called last."""
        frozen = self._frozen  # read once: another thread may begin anew meanwhile
        if device not in frozen:
            rest = [value for name, value in self._parameters.items() if name not in self.trainable]
            frozen[device] = {id(value): own(value, device) for value in rest}
        return frozen[device]


def _differentiable(module: nn.Module, device: torch.device) -> AbstractContextManager[None]:
    """cuDNN's recurrent layers have derivatives in training mode alone: without it, torch takes its own."""
    recurrent = device.type == "cuda" and any(isinstance(part, nn.RNNBase) for part in module.modules())
    return without_cudnn() if recurrent else nullcontext()


def _held(module: nn.Module) -> list[tuple[str, int, torch.dtype, bool]]:
    """Which parameters and buffers the module holds, in which dtypes, and which of them are trained."""
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return [(name, id(value), value.dtype, value.requires_grad) for name, value in every]
