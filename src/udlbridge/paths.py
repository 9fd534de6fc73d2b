"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from udlbridge.errors import OptionError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path in which `~` is the user's home, also where no shell has put it there.

    Raises:
        OptionError: neither text nor a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise OptionError(
            f"a file or folder that is of type {type(path).__name__}",
            allowed="its path: text, or a pathlib.Path",
            remedy='as "name.npy" or Path("name.npy")',
        )
    return Path(os.path.expanduser(path))
