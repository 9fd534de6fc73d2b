"""Any PyTorch module as a network, without translation: where a `Model` stands, a `ModuleNetwork` may."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udlbridge.backends import sites as described
from udlbridge.backends.pytorch.choices import choice_text
from udlbridge.backends.pytorch.copies import private_copy
from udlbridge.backends.pytorch.devices import full_float32
from udlbridge.backends.pytorch.findings import Finding, Key, keep, kept
from udlbridge.backends.pytorch.gathering import Observed, samples_together
from udlbridge.backends.pytorch.layouts import FEW
from udlbridge.backends.pytorch.module_evaluation import ModuleEvaluation
from udlbridge.backends.pytorch.module_hash import module_hash
from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.module_layers import ModuleLayers
from udlbridge.backends.pytorch.module_outputs import Choice, ending_of
from udlbridge.backends.pytorch.module_sites import Evaluation, ModuleSites, Params, followed, independent
from udlbridge.backends.pytorch.module_values import converted, own
from udlbridge.backends.pytorch.structured import Recipe
from udlbridge.backends.pytorch.tensors import array
from udlbridge.backends.pytorch.watching import undisturbed
from udlbridge.errors import ConversionError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.parameters import checked_arrays
from udlbridge.networks.selection import Selection, selected_names
from udlbridge.words import DtypeWord

AT_ONCE = 64
"""Samples whose layers are looked at together: all of their outputs are held for the way back."""


class ModuleNetwork(ModuleEvaluation, ForeignNetwork):
    """A `torch.nn.Module` with the face of a `Model`. Arguments and errors are those of `ModuleEvaluation`."""

    engine = "torch"

    def _read(self) -> None:
        super()._read()
        self._sites: dict[str, ModuleSites] = {}
        self._layers = ModuleLayers(self.name, self.dtypes.kernel, self._shown)
        self._followed: set[tuple[str, ...]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        """The module, and which of its outputs counts; what was seen of samples is found out anew."""
        return type(self), (self.module, self._output)

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """Copies of the trainable parameters, by name, as they are now."""
        values = {name: self._parameters[name].detach().cpu() for name in self.trainable}
        return MappingProxyType({name: value.to(self.dtypes.kernel).numpy().copy() for name, value in values.items()})

    def hash(self) -> str:
        """SHA-256 of what it computes, as `module_hash` takes it.

        Raises:
            ConversionError: `output` is a function that cannot be told from others.
        """
        return module_hash(self.module, choice_text(self._output))

    def _output_name(self) -> str:
        output = self._output
        return getattr(output, "__qualname__", type(output).__qualname__) if callable(output) else repr(output)

    def astype(self, dtype: DtypeWord) -> ModuleNetwork:
        """Of a copy of the module, with all real numbers in that dtype."""
        wanted = torch.float64 if dtype == "float64" else torch.float32
        return self._copied(lambda _, value: value, wanted)

    def _copied(self, changed: Callable[[str, Tensor], Tensor], dtype: torch.dtype | None = None) -> ModuleNetwork:
        """Of a copy of the module, with parameters by name as `changed` gives them, in `dtype` or in their own ones."""
        values: dict[int, Tensor] = {}
        with torch.inference_mode(False):
            for value in self._state:
                values[id(value)] = converted(own(value, value.device), value, dtype)
            for name, value in self._parameters.items():
                given = own(changed(name, value), value.device)
                values[id(value)] = nn.Parameter(converted(given, value, dtype), requires_grad=value.requires_grad)
        return ModuleNetwork(private_copy(self.module, values, {}), self._output)

    def with_params(self, params: Mapping[str, np.ndarray]) -> ModuleNetwork:
        """Of a copy of the module, whose parameters are in its own dtypes.

        Raises:
            ParameterError: other names or shapes, or numbers that are not finite.
        """
        values, _ = checked_arrays(params, self.param_shapes(), {}, self.dtype.name)
        return self._copied(lambda name, value: torch.from_numpy(values[name]) if name in values else value)

    @property
    def layer_kinds(self) -> dict[str, str]:
        """Of the innermost modules that are called with samples, as far as these have come; see `module_layers`."""
        layers = self._found_layers()
        return {name: layers.kinds[name] for name in layers.names}

    @property
    def layer_settings(self) -> dict[str, str]:
        """Of all modules by path, as printing them shows them."""
        return {path: part.extra_repr() for path, part in self.module.named_modules()}

    @property
    def layer_aliases(self) -> dict[str, str]:
        """Paths of modules that are known by another one, their first."""
        first = {id(part): path for path, part in self.module.named_modules()}
        every = self.module.named_modules(remove_duplicate=False)
        return {path: first[id(part)] for path, part in every if first[id(part)] != path}

    @property
    def buffers(self) -> Mapping[str, np.ndarray]:
        """Copies of the real buffers by name, as they are now."""
        reals = {name: value for name, value in self.module.named_buffers() if value.is_floating_point()}
        kernel = self.dtypes.kernel
        return {name: value.detach().cpu().to(kernel).numpy().copy() for name, value in reals.items()}

    @undisturbed()
    def layer_outputs(self, x: np.ndarray, layer: str | None = None) -> dict[str, np.ndarray]:
        """(n, *shape) by path; of the first tensor where a module gives several.

        Raises:
            OptionError: no module of that path is called with samples.
        """
        layers = self._found_layers()
        pieces = (x[start : start + AT_ONCE] for start in range(0, len(x), AT_ONCE))
        parts = [layers.outputs(self.inputs(piece, self.device), layer) for piece in pieces]
        return {name: array(torch.cat([part[name] for part in parts])) for name in parts[0]}

    @undisturbed()
    def layer_signals(self, x: np.ndarray, y: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Outputs and errors by path, (n, *shape) each."""
        layers, parts = self._found_layers(), []
        for start in range(0, len(x), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            parts.append(layers.signals(self.inputs(x[some], self.device), torch.from_numpy(np.array(y[some]))))
        both = {name: [torch.cat(of) for of in zip(*(part[name] for part in parts), strict=True)] for name in parts[0]}
        return {name: (array(a), array(e)) for name, (a, e) in both.items()}

    def _found_layers(self) -> ModuleLayers:
        examples = self._examples
        assert examples is not None
        with full_float32():
            self._layers.find(lambda count: self.inputs(examples[:count], self.device))
        return self._layers

    def _shown(self, inputs: Inputs, show: Callable[[nn.Module], None]) -> Tensor:
        """Outputs of a copy that was shown before; its parameters are followed."""
        params = {name: value.requires_grad_() for name, value in self.tensors(self.device).items()}
        return self.evaluate(params, inputs, show=show)[0]

    def ending(self) -> str | None:
        """What makes the outputs, (n, O) already, of logits, read off the graph of the first samples that came."""
        assert self._examples is not None
        params = {name: value.requires_grad_() for name, value in self.tensors(self.device).items()}
        with undisturbed():
            y, _ = self.evaluate(params, self.inputs(self._examples, self.device))
        return ending_of(y)

    def check_training(self) -> None:
        """Refuse parameters whose steps would be rounded to another dtype than that of kernels.

        Raises:
            ConversionError: naming the first.
        """
        for name in self.trainable:
            dtype = self._parameters[name].dtype
            if dtype != self.dtypes.kernel:
                raise ConversionError(
                    f"{name} has dtype {str(dtype).removeprefix('torch.')}, and is to be trained",
                    allowed=f"parameters of one dtype, here {self.dtype}",
                    remedy="convert the module: module.float(), or module.double()",
                )

    def padding_rows(self) -> Mapping[str, int]:
        """Of the tables that know their padding token."""
        rows: dict[str, int] = {}
        for path, part in self.module.named_modules():
            name = f"{path}.weight".lstrip(".")
            if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None:
                rows |= {self._aliases[name]: part.padding_idx} if name in self._aliases else {}
        return rows

    @undisturbed()
    def check_derivatives(self, names: Iterable[str]) -> None:
        """Refuse parameters that autograd cannot follow the outputs to, of which all derivatives would be 0.

        Raises:
            ConversionError: naming the first of them.
        """
        counted = tuple(names)
        if self._examples is None or not counted or counted in self._followed or self._on(self.device).known(counted):
            return
        some = self.inputs(self._examples[:FEW], self.device)
        y, _ = self.evaluate(followed(self.tensors(self.device), counted), some)
        if not y.requires_grad:
            raise independent(self.name, counted)
        self._followed.add(counted)

    def check_sites(self, names: Iterable[str]) -> None:
        """Nothing: where they are looked for, parameters that the outputs do not depend on are refused."""

    @undisturbed()
    def check_input_derivatives(self) -> None:
        """Refuse outputs that autograd cannot follow to the samples, by which all derivatives would be 0.

        Raises:
            ConversionError: they do not depend on the samples, or nothing is followed at all.
        """
        if self._examples is None or self.takes_tokens:
            return
        some = {name: value.requires_grad_() for name, value in self.inputs(self._examples[:FEW], self.device).items()}
        y, _ = self.evaluate(self.tensors(self.device), some)
        if not y.requires_grad:
            raise ConversionError(
                f"the outputs of {self.name} do not depend on the samples",
                allowed="outputs that autograd can follow to the samples",
                remedy="look for torch.no_grad(), .detach() and comparisons in forward",
            )

    def translatable(self) -> nn.Module:
        """The module, whose outputs are those of the network.

        Raises:
            ConversionError: one of its outputs was chosen.
        """
        if self._output is not None:
            raise ConversionError(
                f"output={self._output_name()} of {self.name}",
                allowed="modules whose forward gives one tensor",
                remedy="wrap it in a module that returns that output",
            )
        return self.module

    def capturable(self) -> tuple[nn.Module, Choice]:
        """The module, and which of its outputs counts."""
        return self.module, self._output

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

    def _on(self, device: str) -> ModuleSites:
        """Its sites where it computes: of some layers, each device has nodes of its own."""
        place = self._place(device)
        if place not in self._sites:
            self._sites[place] = ModuleSites(
                self.name,
                self.param_shapes(),
                self.dtypes.kernel,
                self.evaluate,
                lambda names: kept(self.module, self._key(place, names, self._examples)),
                lambda names, finding: keep(self.module, self._key(place, names, self._examples), finding),
            )
        return self._sites[place]

    @staticmethod
    def _place(device: str) -> str:
        """The device with its number: of "cuda" that is "cuda:0"."""
        return str(torch.zeros(0, device=device).device)

    def _key(self, place: str, names: tuple[str, ...], samples: np.ndarray | None) -> Key | None:
        """Of what is found of its sites: what kind of samples, outputs and parameters it holds for; None if unclear."""
        output = self._output
        if samples is None or not (output is None or isinstance(output, str | int)):
            return None
        return place, output, samples.dtype, samples.shape[1:], names

    @undisturbed()
    def recipe(self, names: tuple[str, ...], params: Params, device: str) -> Recipe:
        """How the parameters `names` enter, found on the first samples that came.

        Raises:
            ConversionError: the outputs do not depend on them.
        """
        examples = self._examples
        assert examples is not None
        with full_float32():
            sites, back = self._on(device), lambda: self.inputs(self._back, device)
            return sites.recipe(names, params, lambda count: self.inputs(examples[:count], device), back)

    @undisturbed()
    def _find_by(self, seen: Evaluation, samples: np.ndarray) -> None:
        """Find the recipe of all parameters by samples that were tried with them."""
        with full_float32():
            few, back = self.inputs(samples[:FEW], self.device), lambda: self.inputs(self._back, self.device)
            self._on(self.device).find_by(seen, few, back)

    def _found_before(self, batch: np.ndarray) -> Finding | None:
        return kept(self.module, self._key(self._place(self.device), self.trainable, batch))

    @undisturbed()
    def observed(self, names: tuple[str, ...], params: Params, inputs: Inputs) -> Observed:
        """One evaluation of a batch with the sites of `names`."""
        return self._on(str(next(iter(params.values())).device)).observed(names, params, inputs)

    def described_sites(self, names: tuple[str, ...]) -> list[described.Site]:
        """What its sites cost."""
        self._known(names)
        return self._on(self.device).described(names)

    def activation_numbers(self, names: tuple[str, ...]) -> int:
        """Numbers that one sample's passes hold: activations for the way back, and the errors at all sites together."""
        return 2 * self._known(names).numbers

    def samples_together(self, names: tuple[str, ...], n: int) -> int:
        """How many of n samples pass together: all of them, where the gradients of a whole block are taken."""
        plan = self._known(names)
        return n if plan.alone else samples_together(plan.numbers, n)

    def _known(self, names: tuple[str, ...]) -> Recipe:
        """The recipe, for which parameters are copied at the first time alone."""
        tried, self._trial = self._trial, None
        if tried is not None and names == self.trainable:
            self._find_by(*tried)
        known = self._on(self.device).known(names)
        return known or self.recipe(names, self.tensors(self.device), self.device)


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
    model: ModuleNetwork, sample_shape: tuple[int, ...], params: Collection[str] | None, n: int
) -> int:
    return model.samples_together(model.trainable if params is None else tuple(params), n)
