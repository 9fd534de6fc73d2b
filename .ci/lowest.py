"""Prints, as constraints of pip, the lowest version that pyproject.toml allows of every dependency."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in project["dependencies"]:
    found = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)(?:,<[0-9.]+)?", requirement)
    if found is None:
        raise SystemExit(f"{requirement}: no lowest version, as name>=1.2 or name>=1.2,<2 has one")
    print(f"{found[1]}=={found[2]}")
