"""Weights as people keep them: inside other things, under longer names, in half precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from udlbridge.errors import ModelFileError, OptionError
from udlbridge.options import brief

WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
"""What stands before the names of a module that was wrapped, by what wrapped it."""

INSIDE = ("state_dict", "model_state_dict")
"""Under which key a checkpoint has the state dict, beside the optimiser's and the number of the epoch."""

LIGHTNING = "pytorch-lightning_version"
"""The key by which a checkpoint of Lightning is known: its names begin with that of the module's attribute."""


def unwrapped(found: Any) -> tuple[Any, bool]:
    """The state dict in what a file holds, and whether Lightning wrote it."""
    if isinstance(found, Mapping):
        for key in INSIDE:
            if isinstance(found.get(key), Mapping):
                return found[key], LIGHTNING in found
    return found, False


def prefixes_of(names: Collection[str], lightning: bool) -> str:
    """What all names begin with that a wrapper put there: "module.", "module._orig_mod.", or nothing."""
    found = ""
    while names:
        first = next(iter(names))
        known = [*WRAPPERS, *([first.partition(".")[0] + "."] if lightning and "." in first else [])]
        prefix = next((one for one in known if all(name.startswith(one) for name in names)), None)
        if prefix is None:
            break
        lightning = lightning and prefix in WRAPPERS
        found, names = found + prefix, [name.removeprefix(prefix) for name in names]
    return found


def stripped(
    arrays: Mapping[str, np.ndarray], strip: str | None, lightning: bool, source: Path | str
) -> dict[str, np.ndarray]:
    """The arrays by shorter names: "auto" takes off what wrappers put there, any other text is taken off as it is.

    Raises:
        OptionError: `strip` is no text, or not what all names begin with.
        ModelFileError: two names become one.
    """
    if strip is None:
        return dict(arrays)
    if not isinstance(strip, str) or not strip:
        raise OptionError(
            f"strip={brief(strip)}", allowed='None, "auto", or a prefix, as "model."', remedy='say "auto"'
        )
    prefix = prefixes_of(list(arrays), lightning) if strip == "auto" else strip
    other = next((name for name in arrays if not name.startswith(prefix)), None)
    if other is not None:
        raise OptionError(
            f"strip={brief(strip)}, and {source} has {other}", allowed="what all names begin with", remedy='say "auto"'
        )
    # torch.compile of a part of a module leaves its name in the middle.
    parts = ("_orig_mod.",) if strip == "auto" else ()
    names = {name: _without(name.removeprefix(prefix), parts) for name in arrays}
    if len(set(names.values())) < len(names):
        raise ModelFileError(
            f"{source}: names that are the same without {prefix!r}",
            allowed="one array of a name",
            remedy="leave out strip",
        )
    return {names[name]: value for name, value in arrays.items()}


def _without(name: str, parts: Collection[str]) -> str:
    for part in parts:
        name = name.replace(part, "")
    return name


def hint(names: Collection[str], lightning: bool) -> str:
    """In words what wrappers put before names, and what takes it off; nothing where there are none."""
    prefix = prefixes_of(names, lightning)
    words = " and ".join(by for one, by in WRAPPERS.items() if one in prefix) or "Lightning"
    return f"all names begin with {prefix!r}, as {words} writes them: say strip='auto'" if prefix else ""
