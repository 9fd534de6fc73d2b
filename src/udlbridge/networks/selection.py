"""Which parameters a kernel sums over: what `params=` means, said once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from udlbridge.errors import ParameterError
from udlbridge.networks.model import Model

Selection = str | Sequence[str] | None


def selected_names(names: Sequence[str], params: Selection, words: Iterable[str] = ()) -> tuple[str, ...]:
    """The names that `params` means, in their own order: None for all, else one or several glob patterns ("*.bias").

    `words` are what the caller understands besides; only the errors mention them.

    Raises:
        ParameterError: a pattern that matches nothing, or no pattern at all.
    """
    if params is None:
        return tuple(names)
    patterns = [params] if isinstance(params, str) else list(params)
    for pattern in patterns:
        if not isinstance(pattern, str) or not any(fnmatchcase(name, pattern) for name in names):
            raise ParameterError(
                f"params={pattern!r} matches no parameter",
                allowed=", ".join(names) or "nothing: the model has no parameters",
                remedy=", ".join(["use names", 'patterns like "*.bias"', *(f'"{word}"' for word in words)]),
            )
    found = tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    if not found:
        raise ParameterError(f"params={params!r} is empty", allowed=", ".join(names), remedy="leave it out for all")
    return found


def selected_parameters(model: Model, params: Selection) -> tuple[str, ...]:
    """The names of the model's parameters that `params` means, in the model's order.

    Besides patterns: "readout" is the last layer with parameters, "hidden" are all layers before it.

    Raises:
        ParameterError: as `selected_names`.
    """
    groups = names_by_layer(model.params)
    words = {}
    if groups:
        *hidden, readout = groups
        words = {"readout": [readout], "hidden": hidden}
    if isinstance(params, str) and params in words:
        params = [f"{layer}.*" for layer in words[params]]
    return selected_names(list(model.params), params, ("readout", "hidden"))


def names_by_layer(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names of parameters by the number of their layer, in order: {"0": ("0.weight", "0.bias"), ...}."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in names:
        layer = name.split(".", 1)[0]
        groups[layer] = (*groups.get(layer, ()), name)
    return groups
