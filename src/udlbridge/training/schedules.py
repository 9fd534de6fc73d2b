"""How the learning rate changes: one factor for each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from udlbridge.errors import OptionError
from udlbridge.options import brief, checked_not_negative

SCHEDULES: dict[str, Mapping[str, float]] = {
    "constant": {},
    "step": {"every": 1, "factor": 0.1},
    "cosine": {"epochs": math.nan, "floor": 0.0},
}
"""Names, and the settings with their defaults. step: factor^(epoch // every). cosine: from 1 down to `floor` over
`epochs` epochs, floor + (1 - floor) (1 + cos(pi epoch / epochs)) / 2, and `floor` from then on (Loshchilov and Hutter,
2017, equation 5, without restarts). Epochs count from 0. `epochs` has no default: it is not the length of a run, which
may be resumed to become longer."""


@dataclass(frozen=True)
class Schedule:
    """A checked schedule: one of `SCHEDULES` with all of its settings. It does not depend on where a run stops."""

    name: str
    settings: Mapping[str, float]

    def factor(self, epoch: int) -> float:
        """What every learning rate is multiplied by in this epoch."""
        if self.name == "step":
            return float(self.settings["factor"] ** (epoch // int(self.settings["every"])))
        if self.name == "cosine":
            progress = min(epoch / self.settings["epochs"], 1.0)
            floor = self.settings["floor"]
            return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
        return 1.0

    def spec(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "settings": dict(self.settings)}


def checked_schedule(schedule: object) -> Schedule:
    """The `Schedule` that None (constant) or a pair as ("cosine", {"epochs": 10}) means.

    Raises:
        OptionError: unknown name or setting, or a value out of range.
    """
    if schedule is None:
        return Schedule("constant", {})
    if not (isinstance(schedule, (tuple, list)) and len(schedule) == 2 and isinstance(schedule[1], Mapping)):
        raise OptionError(
            f"schedule={brief(schedule)}",
            allowed="None, or a pair of a name and a dict of settings",
            remedy='as schedule=("step", {"every": 2, "factor": 0.5})',
        )
    name, given = schedule
    if not isinstance(name, str) or name not in SCHEDULES:
        raise OptionError(f"unknown schedule {brief(name)}", allowed=", ".join(SCHEDULES), remedy="choose one of them")
    defaults = SCHEDULES[name]
    unknown = [key for key in given if key not in defaults]
    if unknown:
        raise OptionError(
            f"schedule {name!r} has no setting {', '.join(map(repr, unknown))}",
            allowed=", ".join(defaults) or "none",
            remedy="correct the name of the setting",
        )
    missing = [key for key, value in defaults.items() if math.isnan(value) and key not in given]
    if missing:
        raise OptionError(
            f"schedule {name!r} without {', '.join(missing)}",
            allowed="the number of epochs over which it falls",
            remedy=f'as schedule=("{name}", {{"epochs": 10}})',
        )
    settings = {key: checked_not_negative(f"{name}: {key}", given.get(key, value)) for key, value in defaults.items()}
    for key in ("every", "epochs"):
        if key in settings and (settings[key] < 1 or settings[key] != int(settings[key])):
            raise OptionError(f"{name}: {key}={settings[key]}", allowed="a whole number, at least 1", remedy="raise it")
    return Schedule(name, settings)
