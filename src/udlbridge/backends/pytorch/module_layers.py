"""What the modules inside a module give, by their paths: outputs with the samples first, and errors that reach them.

The layers are the innermost modules that are called, in the order of their calls; one that is called several times has
"#2", "#3" after its path from its second call on. Where the samples stand in an output is found as everywhere, by
comparing two small batches; what is the same for all samples, as a table of positions, is not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from udlbridge.backends.pytorch.layouts import FEW, MORE, Layout, agree, candidates
from udlbridge.backends.pytorch.module_inputs import Inputs
from udlbridge.backends.pytorch.tensors import gradients
from udlbridge.backends.pytorch.watching import undisturbed
from udlbridge.errors import ConversionError, OptionError
from udlbridge.options import brief

Evaluate = Callable[[Inputs, Callable[[nn.Module], None]], Tensor]
"""Inputs to outputs (n, O), with parameters that are followed, of a copy that the function was shown before."""


@dataclass
class Record:
    """What was called in one evaluation: by name, the class and the first tensor of the output, in order of the calls.

    `inner`: names of the calls within which no other was made. `open_calls`: for each call that has not ended, how many
    were made within it.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    inner: set[str] = field(default_factory=set)
    open_calls: list[int] = field(default_factory=list)

    def watch(self, module: nn.Module) -> None:
        """Note all calls inside the module, which is nobody else's."""
        for path, part in module.named_modules():
            part.register_forward_pre_hook(self._begin)
            part.register_forward_hook(self._end(path))

    def _begin(self, part: nn.Module, args: Any) -> None:
        self.open_calls.append(0)

    def _end(self, path: str) -> Callable[[nn.Module, Any, Any], Any]:
        def noted(part: nn.Module, args: Any, output: Any) -> Any:
            within = self.open_calls.pop()
            if self.open_calls:
                self.open_calls[-1] += 1
            calls = 1 + sum(name.partition("#")[0] == path for name in self.kinds)
            name = path if calls == 1 else f"{path}#{calls}"
            self.kinds[name] = type(part).__name__
            value, output = _taken(output)
            if value is not None:
                self.values[name] = value
                if not within:
                    self.inner.add(name)
            return output

        return noted


def _taken(output: Any) -> tuple[Tensor | None, Any]:
    """The first tensor of real numbers in an output, and the output with a copy in its place.

    Others may write to the copy, and the tensor stays what the module gave.
    """
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            return None, output
        followed = output if output.requires_grad else output.detach().requires_grad_()
        return followed, followed.clone()
    if isinstance(output, tuple | list):
        items = list(output)
        for index, item in enumerate(items):
            value, items[index] = _taken(item)
            if value is not None:
                same = type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
                return value, same
        return None, output
    if isinstance(output, dict):
        for name, item in output.items():
            value, copied = _taken(item)
            if value is not None:
                output[name] = copied
                return value, output
    return None, output


class ModuleLayers:
    """The layers of a module. `name`: its own. `dtype`: that of results."""

    def __init__(self, name: str, dtype: torch.dtype, evaluate: Evaluate) -> None:
        self._name, self._dtype, self._evaluate = name, dtype, evaluate
        self._layouts: dict[str, Layout] = {}
        self.kinds: dict[str, str] = {}
        self.names: tuple[str, ...] = ()

    def find(self, examples: Callable[[int], Inputs]) -> None:
        """Find the layers on so many of the first samples that came.

        Raises:
            ConversionError: other modules are called for two samples than for three.
        """
        if self.names:
            return
        few, _ = self._recorded(examples(FEW))
        more, _ = self._recorded(examples(MORE))
        if few.kinds != more.kinds:
            raise ConversionError(
                f"{self._name} calls other modules for {FEW} samples than for {MORE}",
                allowed="modules that do the same for any number of samples",
                remedy="look for what depends on len(x) in forward",
            )
        for name, value in more.values.items():
            own, shapes = few.values[name], (tuple(few.values[name].shape), tuple(value.shape))
            for layout in candidates(*shapes):
                if agree(layout.samples_first(own), layout.samples_first(value)[:FEW]):
                    self._layouts[name] = layout
                    break
        self.kinds = more.kinds
        self.names = tuple(name for name in more.values if name in more.inner and name in self._layouts)

    def outputs(self, inputs: Inputs, layer: str | None) -> dict[str, Tensor]:
        """(n, *shape) by name, of all layers, or of the one call `layer`, which need not be an innermost one.

        Raises:
            OptionError: there is no such call, or what it gives is not of samples.
        """
        if layer is not None and layer not in self._layouts:
            raise OptionError(
                f"layer={brief(layer)} of {self._name}",
                allowed=", ".join(map(repr, self._layouts)),
                remedy="name a module that is called with samples by its path, or a number of a layer",
            )
        record, _ = self._recorded(inputs)
        return {name: self._placed(name, self._called(record, name), inputs) for name in self._wanted(layer)}

    def signals(self, inputs: Inputs, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer its outputs, and the gradient of sum (f(x) - y)^2 at them, (n, *shape) each."""
        record, y = self._recorded(inputs)
        found = [self._called(record, name) for name in self.names]
        with undisturbed():
            loss = ((y[: len(targets)] - targets.to(y)) ** 2).sum()
            errors = gradients(loss, found)
        own = [torch.zeros_like(a) if error is None else error for a, error in zip(found, errors, strict=True)]
        both = zip(self.names, found, own, strict=True)
        return {name: (self._placed(name, a, inputs), self._placed(name, e, inputs)) for name, a, e in both}

    def _called(self, record: Record, name: str) -> Tensor:
        """What a layer gave.

        Raises:
            ConversionError: it was not called for these samples.
        """
        if name not in record.values:
            raise ConversionError(
                f"{self._name} calls {name} for some samples and not for others",
                allowed="modules that call the same layers for every batch",
                remedy="look for branches on what the samples are in forward",
            )
        return record.values[name]

    def _wanted(self, layer: str | None) -> Sequence[str]:
        return self.names if layer is None else (layer,)

    def _placed(self, name: str, value: Tensor, inputs: Inputs) -> Tensor:
        layout = self._layouts[name]
        found = layout.samples_first(value.detach())[: len(next(iter(inputs.values())))]
        # The axis of samples is left with what was folded into it: mostly nothing.
        return (found.squeeze(layout.axis + 1) if found.ndim > 2 else found).to(self._dtype)

    def _recorded(self, inputs: Inputs) -> tuple[Record, Tensor]:
        """One evaluation; torch computes some things in another way for a single sample, so it gets a companion."""
        record = Record()
        n = len(next(iter(inputs.values())))
        batch = inputs if n > 1 else {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
        with undisturbed():
            y = self._evaluate(batch, record.watch)
        return record, y
