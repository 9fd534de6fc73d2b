"""Which parameters a kernel sums over: what `params=` means, said once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from udlbridge.errors import ParameterError
from udlbridge.networks.foreign import ForeignNetwork
from udlbridge.networks.model import Model
from udlbridge.options import brief

Selection = str | Sequence[str] | None


def selected_names(
    names: Sequence[str], params: Selection, words: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, ...]:
    """The names that `params` means, in their own order: None for all, else what one of several patterns matches.

    Args:
        names: the names to select from.
        params: names, glob patterns ("*.bias") and words, one or several; together they mean their union.
        words: names by a word that stands for them.

    Raises:
        ParameterError: a pattern that matches nothing, or no pattern at all.
    """
    if params is None:
        return tuple(names)
    known = words or {}
    given = [params] if isinstance(params, str) or not isinstance(params, Iterable) else list(params)
    found: set[str] = set()
    for pattern in given:
        own = known.get(pattern) if isinstance(pattern, str) else ()
        if own is None:
            own = [name for name in names if fnmatchcase(name, pattern)]
        if not own:
            raise ParameterError(
                f"params={brief(pattern)} matches no parameter",
                allowed=", ".join(names) or "nothing: the model has no parameters",
                remedy=", ".join(
                    ["use names", 'patterns like "*.bias"', *(f'"{word}"' for word in known), "one or a list of them"]
                ),
            )
        found.update(own)
    if not found:
        raise ParameterError(
            f"params={brief(params)} is empty", allowed=", ".join(names), remedy="leave it out for all"
        )
    return tuple(name for name in names if name in found)


def selected_parameters(model: Model | ForeignNetwork, params: Selection) -> tuple[str, ...]:
    """The names of the model's parameters that `params` means, in the model's order.

    Besides names and patterns there are two words: "readout" is the last layer with parameters, "hidden" are all layers
    before it. In a list, all of these may stand side by side.

    Raises:
        ParameterError: as `selected_names`.
    """
    if isinstance(model, ForeignNetwork):
        return model.selected(params)
    *hidden, readout = names_by_layer(model.params).values() if model.params else [()]
    words = {"readout": readout, "hidden": [name for layer in hidden for name in layer]}
    return selected_names(list(model.params), params, words)


def names_by_layer(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names of parameters by the number of their layer, in order: {"0": ("0.weight", "0.bias"), ...}."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in names:
        layer = name.split(".", 1)[0]
        groups[layer] = (*groups.get(layer, ()), name)
    return groups
