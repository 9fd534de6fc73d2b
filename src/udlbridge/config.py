"""Where the user's settings are: environment variables first, then one TOML file."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import platformdirs

from udlbridge.errors import ConfigError


def config_file() -> Path:
    """The user's configuration file; it need not exist. `UDLBRIDGE_CONFIG` names another."""
    named = os.environ.get("UDLBRIDGE_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir("udlbridge")) / "config.toml"


def read() -> dict[str, dict[str, str]]:
    """The tables of the configuration file; empty if there is no file.

    Raises:
        ConfigError: if the file is not TOML.
    """
    path = config_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error})", remedy="mend its permissions or remove it") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not valid TOML ({error})", remedy="correct it, or write it anew with `udlbridge julia use`"
        ) from error


def write_julia(exe: Path, project: Path) -> Path:
    """Write the [julia] table (other tables are kept) and return the file's path."""
    tables = read()
    tables["julia"] = {"exe": str(exe), "project": str(project)}
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A JSON string is a valid TOML basic string.
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
