"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path in which `~` is the user's home, also where no shell has put it there."""
    return Path(os.path.expanduser(path))
