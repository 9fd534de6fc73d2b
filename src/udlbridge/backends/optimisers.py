"""Optimisers by name: their settings and what they remember. Each engine implements the formulas by itself.

The formulas are those of Flux (Optimisers.jl). PyTorch's are equal at a constant rate; with a schedule, Flux's momentum
remembers steps (rate included) where PyTorch's remembers gradients. "momentum" follows Flux, "torch_momentum" PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from udlbridge.errors import OptionError
from udlbridge.options import brief, checked_not_negative
from udlbridge.texts import nearest


@dataclass(frozen=True)
class Kind:
    """One kind of optimiser: its formula, the defaults of its settings, and the arrays that it keeps by parameter."""

    formula: str
    defaults: Mapping[str, float]
    slots: tuple[str, ...]


OPTIMISERS: dict[str, Kind] = {
    "sgd": Kind("p -= lr g", {"lr": 0.01, "weight_decay": 0.0}, ()),
    "momentum": Kind(
        "v = momentum v + lr g; p -= v", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}, ("velocity",)
    ),
    "torch_momentum": Kind(
        "v = momentum v + g; p -= lr v", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}, ("velocity",)
    ),
    "nesterov": Kind(
        "v = momentum v + lr g; p -= momentum v + lr g",
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0},
        ("velocity",),
    ),
    "adam": Kind(
        "m = beta1 m + (1 - beta1) g; s = beta2 s + (1 - beta2) g^2; "
        "p -= lr (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + eps)",
        {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        ("first", "second"),
    ),
    "adamw": Kind(
        "as adam, and p -= lr weight_decay p",
        {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
        ("first", "second"),
    ),
    "rmsprop": Kind(
        "s = rho s + (1 - rho) g^2; p -= lr g / (sqrt(s) + eps)",
        {"lr": 0.001, "rho": 0.9, "eps": 1e-8, "weight_decay": 0.0},
        ("second",),
    ),
}
"""The registry. g is the gradient of the mean loss, clipped if asked, plus weight_decay p (not for adamw); t counts
steps from 1."""

ALIASES = {
    "SGD": "sgd", "Adam": "adam", "AdamW": "adamw", "RMSprop": "rmsprop",
    "Descent": "sgd", "Momentum": "momentum", "Nesterov": "nesterov", "RMSProp": "rmsprop",
}  # fmt: skip
"""What PyTorch and Flux call them."""

BELOW_ONE = ("momentum", "beta1", "beta2", "rho")


@dataclass(frozen=True)
class Optimiser:
    """A checked optimiser: one of `OPTIMISERS` with all of its settings."""

    name: str
    settings: Mapping[str, float]

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays that it keeps for every parameter."""
        return OPTIMISERS[self.name].slots

    def spec(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "settings": dict(self.settings)}


def checked_optimizer(optimizer: object) -> Optimiser:
    """The `Optimiser` that a name, or a pair (name, settings), means.

    Settings that are left out have their defaults; `betas=(b1, b2)` stands for beta1 and beta2.

    Raises:
        OptionError: unknown name or setting, or a value out of range.
    """
    if isinstance(optimizer, Optimiser):
        optimizer = (optimizer.name, optimizer.settings)
    name, given = (optimizer, {}) if isinstance(optimizer, str) else _pair(optimizer)
    name = ALIASES.get(name, name)
    if name not in OPTIMISERS:
        raise OptionError(
            f"unknown optimizer {name!r}",
            allowed=", ".join(OPTIMISERS),
            remedy=f'as optimizer=("adam", {{"lr": 0.01}}){nearest(name, OPTIMISERS)}',
        )
    defaults = OPTIMISERS[name].defaults
    values = dict(given)
    if "betas" in values and "beta1" in defaults:
        betas = values.pop("betas")
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise OptionError(f"betas={brief(betas)}", allowed="two numbers", remedy="betas=(0.9, 0.999)")
        values |= {"beta1": betas[0], "beta2": betas[1]}
    unknown = [key for key in values if key not in defaults]
    if unknown:
        raise OptionError(
            f"{name} has no setting {', '.join(map(repr, unknown))}",
            allowed=", ".join(defaults),
            remedy="correct the name of the setting",
        )
    settings = {
        key: checked_not_negative(f"{name}: {key}", values.get(key, default)) for key, default in defaults.items()
    }
    for key in BELOW_ONE:
        if settings.get(key, 0.0) >= 1:
            raise OptionError(f"{name}: {key}={settings[key]}", allowed="0 <= value < 1", remedy=f"lower {key}")
    return Optimiser(name, settings)


def _pair(optimizer: object) -> tuple[str, Mapping[str, Any]]:
    if isinstance(optimizer, (tuple, list)) and len(optimizer) == 2:
        name, settings = optimizer
        if isinstance(name, str) and isinstance(settings, Mapping):
            return name, settings
    raise OptionError(
        f"optimizer={brief(optimizer)}",
        allowed="a name, or a pair of a name and a dict of settings",
        remedy='as optimizer=("adam", {"lr": 0.01})',
    )


def group_rates(names: list[str], lr: float, groups: Mapping[str, float] | None) -> dict[str, float]:
    """The learning rate of every parameter.

    Args:
        names: of the parameters.
        lr: of those that no pattern matches.
        groups: rates by glob pattern, as {"0.*": 1e-3, "*": 1e-2}; the first that matches a name counts.

    Raises:
        OptionError: a pattern that no parameter takes its rate from.
    """
    if groups is not None and not (isinstance(groups, Mapping) and all(isinstance(name, str) for name in groups)):
        raise OptionError(
            f"lr_groups={groups!r}", allowed="a dict of rates by pattern", remedy='as lr_groups={"0.*": 1e-3}'
        )
    rates = dict.fromkeys(names, lr)
    left = list(names)
    for pattern, rate in (groups or {}).items():
        matched = [name for name in left if fnmatchcase(name, pattern)]
        if not matched:
            hidden = any(fnmatchcase(name, pattern) for name in names)
            raise OptionError(
                f"the learning-rate pattern {pattern!r} matches no parameter"
                + (" that an earlier pattern has not taken" if hidden else ""),
                allowed=f"patterns for {', '.join(names)}",
                remedy="put the special patterns first" if hidden else "correct the pattern",
            )
        rates |= dict.fromkeys(matched, checked_not_negative(f"lr_groups[{pattern!r}]", rate))
        left = [name for name in left if name not in matched]
    return rates
