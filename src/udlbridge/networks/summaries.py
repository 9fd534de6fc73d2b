"""A network as a table: its layers, the shapes of samples after them, and how many parameters each has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import attrs

from udlbridge.displays import LINES, Displayed, shown
from udlbridge.networks.layers import Layer, Residual, Shape
from udlbridge.texts import counted


class _Layered(Protocol):
    """What a `Model` is, as far as a table needs it."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    @property
    def n_params(self) -> int: ...

    @property
    def dtype(self) -> Any: ...


@dataclass(frozen=True, repr=False)
class Summary(Displayed):
    """The layers of a network as rows, `layer`, `output` (the shape of one sample, if known) and `parameters`.

    Examples:
        >>> found = ub.Model([ub.Dense(2, 3), ub.Dense(3, 1)]).summary()
        >>> [row["parameters"] for row in found.as_rows()]
        [9, 4]
    """

    layers: tuple[Mapping[str, Any], ...]
    n_params: int
    dtype: str

    @staticmethod
    def of(model: _Layered, shape: Shape | None) -> Summary:
        """The table of a model, for samples of that shape; where it is None and one vector is taken, for those.

        Raises:
            ShapeError: a layer cannot take such samples.
        """
        rows = []
        if shape is None:
            widths = model.layers[0].widths()
            shape = (widths[1],) if widths is not None and widths[0] == -1 else None
        for index, layer in enumerate(model.layers):
            shape = None if shape is None else layer.output_shape(shape)
            size = sum(prod(own) for own in layer.param_shapes().values())
            rows.append({"": index, "layer": _words(layer), "output": shape, "parameters": size})
        return Summary(tuple(rows), model.n_params, str(model.dtype))

    def as_rows(self) -> Sequence[Mapping[str, Any]]:
        """One row for each layer."""
        return self.layers

    def short(self) -> str:
        """The first layers and the last one, and the sum."""
        shown = self.layers if len(self.layers) <= LINES - 2 else (*self.layers[: LINES - 4], None, self.layers[-1])
        return self._text(shown)

    def __str__(self) -> str:
        return self._text(self.layers)

    def _text(self, rows: Sequence[Mapping[str, Any] | None]) -> str:
        known = [row for row in rows if row is not None]
        wide, far = (max(len(shown(row[name])) for row in known) for name in ("layer", "output"))
        lines = [f"Model of {counted(len(self.layers), 'layer')}, {counted(self.n_params, 'parameter')}, {self.dtype}"]
        for row in rows:
            if row is None:
                lines.append("     ...")
                continue
            output, size = shown(row["output"]), row["parameters"]
            lines.append(f"{row['']:>4} {row['layer']:<{wide}}  {output:<{far}}  {size:>11,}".rstrip())
        return "\n".join(lines)


def _words(layer: Layer) -> str:
    """A layer by its settings, without those that are as usual: Dense(784, 60, activation='sigmoid')."""
    if isinstance(layer, Residual):
        return f"Residual of {counted(len(layer.layers), 'layer')}" + (", with a shortcut" if layer.shortcut else "")
    words = []
    for setting in attrs.fields(type(layer)):
        value = getattr(layer, setting.name)
        if setting.default is attrs.NOTHING:
            words.append(str(value))
        elif value != setting.default:
            words.append(f"{setting.name}={value!r}")
    return f"{type(layer).__name__}({', '.join(words)})"
