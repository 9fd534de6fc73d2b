"""Settings of layers: the type of a setting says what is allowed, and attrs converts and checks what comes in.

Numbers and truth values of NumPy become those of Python, so that every layer can be written as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_type_hints

import attrs
import numpy as np

from udlbridge.errors import LayerError
from udlbridge.options import brief
from udlbridge.texts import nearest

ACTIVATIONS: dict[str, str] = {
    "identity": "z",
    "relu": "max(z, 0), with slope 0 at 0",
    "sigmoid": "1 / (1 + exp(-z))",
    "tanh": "tanh(z)",
    "gelu_tanh": "z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))",
    "gelu_erf": "z/2 (1 + erf(z / sqrt 2))",
    "softplus": "log(1 + exp(z))",
    "swish": "z sigmoid(z)",
    "elu": "z where z > 0, else exp(z) - 1",
    "leakyrelu": "z where z > 0, else 0.01 z",
    "selu": "1.0507 (z where z > 0, else 1.67326 (exp(z) - 1))",
    "mish": "z tanh(softplus(z))",
    "abs": "|z|, with slope 0 at 0",
    "erf": "2 / sqrt(pi) times the integral of exp(-t^2) from 0 to z",
    "sin": "sin(z)",
}
"""Name of every activation, and its formula. `gelu` alone is refused: Flux and PyTorch mean different functions."""

ALIASES = {
    "silu": "swish", "leaky_relu": "leakyrelu", "Identity": "identity", "ReLU": "relu", "Sigmoid": "sigmoid",
    "Tanh": "tanh", "Softplus": "softplus", "SiLU": "swish", "ELU": "elu", "LeakyReLU": "leakyrelu", "SELU": "selu",
    "Mish": "mish",
}  # fmt: skip
"""What PyTorch calls them, its functions and its classes."""

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen_layer(cls: type[T]) -> type[T]:
    """A frozen class of attrs whose settings are converted and checked as their types say: `Size`, `Flag`, ..."""
    return attrs.frozen(cls, field_transformer=_as_their_types_say)


def _as_their_types_say(cls: type, settings: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    return [setting.evolve(**getattr(hints[setting.name], "__metadata__", ({},))[0]) for setting in settings]


def _plain(value: Any) -> Any:
    """Numbers, truth values and arrays of NumPy as those of Python and as lists; anything else as it is."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _number(value: Any) -> Any:
    plain = _plain(value)
    return float(plain) if _is_number(plain) else value


def several(value: Any, count: int = 1) -> tuple[Any, ...]:
    """A sequence as a tuple; anything else `count` times."""
    plain = _plain(value)
    return tuple(map(_plain, plain)) if isinstance(plain, list | tuple) else (plain,) * count


def _is_number(value: Any, kinds: Any = (int, float)) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_whole(value: Any, least: float = float("-inf")) -> bool:
    return _is_number(value, int) and value >= least


def _allow(
    test: Callable[[Any], bool], allowed: str, remedy: str = "", converter: Callable[[Any], Any] = _plain
) -> dict[str, Any]:
    """For a type: what attrs is told of a setting of it. `allowed` says in words what `test` holds for."""

    def validate(layer: Any, setting: attrs.Attribute[Any], value: Any) -> None:
        if not test(value):
            raise LayerError(
                f"{type(layer).__name__} has {setting.name}={brief(value)}",
                allowed=allowed,
                remedy=remedy or f"correct {setting.name}",
            )

    return {"converter": converter, "validator": validate}


def _known_activation(layer: Any, setting: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, str) and value in ACTIVATIONS:
        return
    remedy = f"choose one of these names{nearest(value, ACTIVATIONS)}"
    if value == "gelu":
        remedy = 'say which form: "gelu_tanh" is Flux\'s gelu, "gelu_erf" is PyTorch\'s'
    raise LayerError(
        f"{type(layer).__name__} has {setting.name}={brief(value)}", allowed=", ".join(ACTIVATIONS), remedy=remedy
    )


def _canonical(value: Any) -> Any:
    plain = _plain(value)
    return ALIASES.get(plain, plain) if isinstance(plain, str) else plain


Size = Annotated[int, _allow(lambda value: _is_whole(value, 1), "an integer of at least 1")]
Index = Annotated[int, _allow(_is_whole, "an integer")]
Axes = Annotated[int | None, _allow(lambda value: value is None or (_is_whole(value, 1) and value <= 2), "1 or 2")]
"""A number of spatial axes; None leaves it to other settings."""
Flag = Annotated[bool, _allow(lambda value: isinstance(value, bool), "True or False")]
ActivationWord = Literal[
    "identity", "relu", "sigmoid", "tanh", "gelu_tanh", "gelu_erf", "softplus", "swish", "elu", "leakyrelu", "selu",
    "mish", "abs", "erf", "sin",
    "silu", "leaky_relu", "Identity", "ReLU", "Sigmoid", "Tanh", "Softplus", "SiLU", "ELU", "LeakyReLU", "SELU", "Mish",
]  # fmt: skip
"""`ACTIVATIONS`, and what else they are called, as type checkers and editors want to read them."""
ActivationName = Annotated[ActivationWord, {"converter": _canonical, "validator": _known_activation}]
"""The name of an activation; PyTorch's names become the names here."""
Epsilon = Annotated[
    float,
    _allow(
        lambda value: _is_number(value) and 0 < value < float("inf"), "a positive number, as 1e-5", converter=_number
    ),
]
Probability = Annotated[
    float,
    _allow(lambda value: _is_number(value) and 0 <= value < 1, "a probability, 0 <= p < 1", converter=_number),
]
Sizes = Annotated[
    int | tuple[int, ...],
    _allow(
        lambda value: value and all(_is_whole(size, 1) for size in value),
        "an integer of at least 1, or several",
        "give the size of the last axis",
        several,
    ),
]
"""One size or several; kept as a tuple."""
Extent = int | tuple[int, ...]
"""One integer for all spatial axes, or one for each; `spread` makes it one for each."""


def check_divides(layer: Any, name: str, *multiples: str) -> None:
    """Raise `LayerError` unless the setting `name` of a new layer divides the settings `multiples`."""
    divisor = getattr(layer, name)
    others = {other: getattr(layer, other) for other in multiples}
    if any(value % divisor for value in others.values()):
        raise LayerError(
            f"{type(layer).__name__} has {name}={divisor} for {' and '.join(f'{k}={v}' for k, v in others.items())}",
            allowed=f"a number that divides {' and '.join(multiples)}",
            remedy="correct one of them",
        )


def spread_sides(layer: Any, name: str, axes: int) -> None:
    """Keep the padding of a new layer as one integer for each axis, or as pairs where an axis has two different sides.

    Raises:
        LayerError: neither integers of at least 0 nor pairs of them, or not as many as there are axes.
    """
    given = getattr(layer, name)
    values = tuple(
        tuple(map(_plain, value)) if isinstance(value, list | tuple) else value for value in several(given, axes)
    )
    sides = [value if isinstance(value, tuple) else (value, value) for value in values]
    if len(sides) != axes or not all(len(side) == 2 and all(_is_whole(zeros, 0) for zeros in side) for side in sides):
        raise LayerError(
            f"{type(layer).__name__} has {name}={brief(given)}",
            allowed=f"an integer of at least 0, {axes} of them, or {axes} pairs (before, after)",
            remedy=f"correct {name}",
        )
    alike = all(before == after for before, after in sides)
    object.__setattr__(layer, name, tuple(side[0] for side in sides) if alike else tuple(sides))


def spread(layer: Any, name: str, axes: int, least: int = 1) -> None:
    """Keep a setting of a new layer as one integer for each of so many spatial axes; a single integer serves all.

    Raises:
        LayerError: not integers of at least `least`, or not as many as there are axes.
    """
    given = getattr(layer, name)
    values = several(given, axes)
    if len(values) != axes or not all(_is_whole(value, least) for value in values):
        raise LayerError(
            f"{type(layer).__name__} has {name}={brief(given)}",
            allowed=f"an integer of at least {least}, or {axes} of them",
            remedy=f"correct {name}",
        )
    object.__setattr__(layer, name, values)
