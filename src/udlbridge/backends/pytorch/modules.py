"""Any PyTorch module as a network, without translation: evaluated on private copies, checked before it is believed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends import sites as described
from udlbridge.backends.pytorch.checks import check_inference
from udlbridge.backends.pytorch.copies import private_copy, tensors_inside
from udlbridge.backends.pytorch.gathering import Observed, samples_together
from udlbridge.backends.pytorch.layouts import MORE
from udlbridge.backends.pytorch.module_inputs import Dtypes, Inputs, arguments, packed, takes_numbers, unpacked
from udlbridge.backends.pytorch.module_outputs import Choice, chosen_outputs
from udlbridge.backends.pytorch.module_sites import ModuleSites, Params
from udlbridge.backends.pytorch.module_trials import check_evaluation, check_same
from udlbridge.backends.pytorch.module_values import check_values, own, unwrapped
from udlbridge.backends.pytorch.structured import Recipe
from udlbridge.backends.pytorch.watching import Watching, undisturbed
from udlbridge.errors import ConversionError, InputError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.selection import Selection, selected_names


class ModuleNetwork(ForeignNetwork):
    """A `torch.nn.Module` with the face of a `Model`: the parameters that require a gradient, shared ones once.

    The module itself is neither moved nor changed. It is looked at when samples come: which shapes it takes and gives
    shows on them.

    Args:
        module: in inference mode, or such that its mode makes no difference.
        output: which of its outputs counts, where it gives several.

    Raises:
        ConversionError: parameters without numbers, none to train, BatchNorm or Dropout in training mode.
    """

    engine = "torch"

    def __init__(self, module: nn.Module, output: Choice = None) -> None:
        self.module = unwrapped(module)
        self._output = output
        check_inference(self.module)
        check_values(self.module)
        every = dict(self.module.named_parameters(remove_duplicate=False))
        first = {id(value): name for name, value in reversed(every.items())}
        self._aliases = {name: first[id(value)] for name, value in every.items()}
        self._parameters = {name: value for name, value in every.items() if self._aliases[name] == name}
        self.trainable = tuple(name for name, value in self._parameters.items() if value.requires_grad)
        if not self.trainable:
            raise ConversionError(
                "the module has no trainable parameters", allowed="at least one", remedy="call requires_grad_(True)"
            )
        every_value = (*self._parameters.values(), *self.module.buffers())
        floats = [value.dtype for value in every_value if value.is_floating_point()]
        self.dtypes = Dtypes(frozenset(floats))
        others = {id(value): value for value in tensors_inside(self.module)}
        self._state = [value for value in others.values() if not isinstance(value, nn.Parameter)]
        self._frozen: dict[str, dict[int, Tensor]] = {}
        self._generators: dict[int, Any] = {}
        self._sites = ModuleSites(self.name, self.param_shapes(), self.dtypes.kernel, self.evaluate)
        self._examples: np.ndarray | None = None
        self._outputs = 0

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.module).__name__

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of kernels: that of the parameters, of half precision float32."""
        return np.dtype(str(self.dtypes.kernel).removeprefix("torch."))

    @cached_property
    def params(self) -> Mapping[str, np.ndarray]:
        """Copies of the trainable parameters, by name."""
        values = {name: self._parameters[name].detach().cpu() for name in self.trainable}
        return MappingProxyType({name: value.to(self.dtypes.kernel).numpy().copy() for name, value in values.items()})

    @property
    def n_outputs(self) -> int:
        """O, as far as samples have come."""
        return self._outputs

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every trainable parameter by name."""
        return {name: tuple(self._parameters[name].shape) for name in self.trainable}

    @property
    def takes_tokens(self) -> bool:
        """Whether there are no derivatives by the samples, as far as they are known."""
        return self._examples is not None and not takes_numbers(self._examples)

    def hash(self) -> str:
        """SHA-256 of the names of the classes inside, and of all parameters and buffers."""
        digest = hashlib.sha256()
        for path, part in self.module.named_modules():
            digest.update(f"{path}:{type(part).__qualname__};".encode())
        values = [*self.module.named_parameters(), *self.module.named_buffers()]
        for name, value in values:
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def astype(self, dtype: str) -> ModuleNetwork:
        """Of a copy of the module."""
        wanted = torch.float64 if dtype == "float64" else torch.float32
        return ModuleNetwork(copy.deepcopy(self.module).to(wanted), self._output)

    def selected(self, params: Selection) -> tuple[str, ...]:
        """The names that `params` means; a shared parameter has several, of which the first stands for it.

        "readout" is the last module with parameters of its own, "hidden" are all others.
        """
        names = [name for name, own in self._aliases.items() if own in self.trainable]
        owner = self.trainable[-1].rpartition(".")[0]
        readout = [name for name in self.trainable if name.rpartition(".")[0] == owner]
        words = {"readout": readout, "hidden": [name for name in self.trainable if name not in readout]}
        found = {self._aliases[name] for name in selected_names(names, params, words)}
        return tuple(name for name in self.trainable if name in found)

    @undisturbed()
    def checked_batch(self, x: Any, name: str) -> np.ndarray:
        """The samples as an array, with a field for each of several inputs; the first ones are evaluated, and checked.

        Raises:
            InputError, ShapeError, DTypeError: what is wrong with them.
            ConversionError: outputs that are random, depend on other samples, or are no tensor of real numbers.
        """
        batch = packed(x, name, self.dtypes)
        if self._examples is not None:
            check_same(batch, self._examples, name)
        places = sorted({0, len(batch) // 2, len(batch) - 1})
        params = self.tensors("cpu")
        self._outputs = check_evaluation(
            self.name,
            lambda some: self.evaluate(params, self.inputs(some, "cpu"), tables=True),
            batch,
            places,
            name,
        ).shape[1]
        if self._examples is None:
            self._examples = batch[(places * MORE)[:MORE]]
        return batch

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(O,), for samples like those that have come."""
        return (self._outputs,)

    def random_batch(self, shape: tuple[int, ...], n: int) -> np.ndarray:
        """Random samples: drawn from those that came, or numbers, or where it takes none, the token 0."""
        generator = np.random.default_rng(0)
        if self._examples is not None:
            return self._examples[generator.integers(0, len(self._examples), size=n)]
        numbers = generator.standard_normal((n, *shape)).astype(self.dtype)
        try:
            return self.checked_batch(numbers, "x")
        except InputError:
            return self.checked_batch(np.zeros((n, *shape), dtype=np.int64), "x")

    def tensors(self, device: str) -> dict[str, Tensor]:
        """The trainable parameters as tensors of their own, on a device."""
        return {name: own(self._parameters[name], device) for name in self.trainable}

    @undisturbed()
    def inputs(self, x: np.ndarray, device: str) -> Inputs:
        """The samples as tensors, by name."""
        return unpacked(x, self.dtypes, device)

    def evaluate(self, params: Params, inputs: Inputs, *, tables: bool = False) -> tuple[Tensor, Watching]:
        """Outputs (n, O), with the axes behind the first in C order, of a copy of the module with these parameters.

        `tables`: note which inputs are looked up in which tables.
        """
        device = next(iter(params.values())).device
        stand_ins = {id(self._parameters[name]): value for name, value in params.items()}
        stand_ins |= self._frozen_values(str(device))
        # Buffers and the like are copied: a module that overwrites its own starts from the same ones each time.
        state = {id(value): own(value, device) for value in self._state}
        copied = private_copy(self.module, stand_ins | state, self._generators)
        watched = {value.data_ptr(): field for field, value in inputs.items()} if tables else {}
        watching = Watching(stand_ins, [*stand_ins.values(), *state.values()], watched)
        args, words = arguments(inputs)
        with undisturbed(), watching:
            y = copied(*args, **words)
        n = len(next(iter(inputs.values())))
        return chosen_outputs(y, n, self._output, self.name), watching

    def _frozen_values(self, device: str) -> dict[int, Tensor]:
        """Parameters that are not trained, by the `id` of the caller's."""
        if device not in self._frozen:
            rest = (value for name, value in self._parameters.items() if name not in self.trainable)
            self._frozen[device] = {id(value): own(value, device) for value in rest}
        return self._frozen[device]

    @undisturbed()
    def recipe(self, names: tuple[str, ...], params: Params, device: str) -> Recipe:
        """How the parameters `names` enter, found on the first samples that came.

        Raises:
            ConversionError: the outputs do not depend on them.
        """
        examples = self._examples
        assert examples is not None
        return self._sites.recipe(names, params, lambda count: self.inputs(examples[:count], device))

    @undisturbed()
    def observed(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> Observed:
        """One evaluation of a batch with the sites of `names`."""
        return self._sites.observed(names, params, inputs)

    def described_sites(self, names: tuple[str, ...]) -> list[described.Site]:
        """What its sites cost."""
        self._known(names)
        return self._sites.described(names)

    def activation_numbers(self, names: tuple[str, ...]) -> int:
        """Numbers that one sample's passes hold: activations for the way back, and the errors at all sites together."""
        return 2 * self._known(names).numbers

    def samples_together(self, names: tuple[str, ...]) -> int | None:
        """How many samples pass together; None where gradients of all samples of a block are taken."""
        plan = self._known(names)
        return None if plan.alone else samples_together(plan.numbers)

    def _known(self, names: tuple[str, ...]) -> Recipe:
        """The recipe, for which parameters are copied at the first time alone."""
        return self.recipe(names, {} if self._sites.knows(names) else self.tensors("cpu"), "cpu")


@described.sites.register
def _sites(model: ModuleNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None) -> list[Any]:
    return model.described_sites(model.trainable if params is None else tuple(params))


@described.activation_numbers.register
def _activation_numbers(
    model: ModuleNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None
) -> int:
    return model.activation_numbers(model.trainable if params is None else tuple(params))


@described.samples_together.register
def _samples_together(
    model: ModuleNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None = None
) -> int | None:
    return model.samples_together(model.trainable if params is None else tuple(params))
