"""Where the user's settings are: environment variables first, then one TOML file."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import platformdirs

from udlbridge.atomic import writing
from udlbridge.errors import ConfigError
from udlbridge.paths import user_path
from udlbridge.texts import read_text

JULIA = "julia"
NAMES = ("exe", "project")
"""The table that names a Julia and an environment to run it in, and what it calls them."""


def config_file() -> Path:
    """The user's configuration file; it need not exist. `UDLBRIDGE_CONFIG` names another."""
    named = os.environ.get("UDLBRIDGE_CONFIG")
    return user_path(named) if named else Path(platformdirs.user_config_dir("udlbridge")) / "config.toml"


WORDS = {True: ("1", "true", "t", "yes", "y", "on"), False: ("0", "false", "f", "no", "n", "off", "")}
"""What says yes and no in an environment variable: the words of the command line's flags; nothing is no."""


def switched_on(name: str) -> bool:
    """Whether the environment variable `name` says yes.

    Raises:
        ConfigError: it says neither yes nor no.
    """
    said = os.environ.get(name, "")
    for meaning, words in WORDS.items():
        if said.strip().lower() in words:
            return meaning
    raise ConfigError(
        f"{name}={said!r}",
        allowed=", ".join(word for words in WORDS.values() for word in words if word),
        remedy=f"set {name}=1, or unset it",
    )


JULIA_PLACE = "UDLBRIDGE_JULIA"
PLACES = ("process", "inprocess")
"""The environment variable that says where Julia runs, and what it may say: a process of its own, or this one."""

JULIA_LINGER = "UDLBRIDGE_JULIA_LINGER"
MOST_LINGER = 7 * 24 * 3600.0
"""The environment variable that says for how many seconds Julia's process waits for a next client, and the most."""


def julia_place() -> str | None:
    """Where Julia is to run, one of `PLACES`; None where the environment does not say.

    Raises:
        ConfigError: it says something else.
    """
    said = os.environ.get(JULIA_PLACE, "").strip().lower()
    if said and said not in PLACES:
        raise ConfigError(
            f"{JULIA_PLACE}={os.environ[JULIA_PLACE]!r}",
            allowed=" or ".join(PLACES),
            remedy=f"set it to one of these, or unset {JULIA_PLACE}",
        )
    return said or None


def julia_linger() -> float:
    """For how many seconds Julia's process waits for a next client when this one has gone; 0 where nothing says.

    Raises:
        ConfigError: not a number of seconds.
    """
    said = os.environ.get(JULIA_LINGER, "").strip() or "0"
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if 0.0 <= seconds <= MOST_LINGER:
        return seconds
    raise ConfigError(
        f"{JULIA_LINGER}={said!r}",
        allowed=f"a number of seconds from 0 to {MOST_LINGER:.0f}, a week",
        remedy=f"set it to one, as 600, or unset {JULIA_LINGER}",
    )


def julia() -> tuple[str | None, str | None]:
    """`exe` and `project` of the configuration file's table [julia]; None where they are not named.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has something else in their place.
    """
    table = _julia_table(_parsed(_text()))
    for name in NAMES:
        if not isinstance(table.get(name, ""), str):
            raise ConfigError(
                f"{config_file()} has {name} = {table[name]!r} in [{JULIA}]",
                allowed="a path in quotes",
                remedy="correct it, or remove it with `udlbridge julia forget`",
            )
    return table.get("exe"), table.get("project")


def write_julia(exe: Path, project: Path) -> Path:
    """Name a Julia and an environment in the configuration file; all else in it stays. Returns the file's path.

    Raises:
        ConfigError: the file cannot be read or written, or is not TOML: it stays as it is then.
    """

    def edit(document: Any) -> None:
        document.setdefault(JULIA, {})
        _julia_table(document).update(exe=str(exe), project=str(project))

    _write(_edited(_text(), edit))
    return config_file()


def forget_julia() -> bool:
    """Undo `write_julia`; whether there was anything to undo. A file that holds nothing else is removed.

    Raises:
        ConfigError: as `write_julia`.
    """
    text = _text()
    if not _julia_table(_parsed(text)).keys() & set(NAMES):
        return False

    def edit(document: Any) -> None:
        table = _julia_table(document)
        for name in NAMES:
            table.pop(name, None)
        # What stands between one table and the next, comments too, is part of the first.
        if not table and "#" not in getattr(table, "as_string", str)():
            del document[JULIA]

    changed = _edited(text, edit)
    if changed.strip():
        _write(changed)
    else:
        config_file().unlink()
    return True


def _text() -> str:
    """What the file says, its line ends as they are; nothing if there is no file."""
    path = config_file()
    try:
        return read_text(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error})",
            allowed="a text file in UTF-8",
            remedy="mend its permissions or its encoding, or move it away",
        ) from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # integers of thousands of digits and endless nesting too
        raise ConfigError(
            f"{config_file()} is not valid TOML ({error})",
            allowed="tables and values, as https://toml.io describes them",
            remedy="correct that line, or move the file away; it is left as it is",
        ) from error


def _julia_table(document: Any) -> Any:
    table = document.get(JULIA, {})
    if not isinstance(table, MutableMapping):
        raise ConfigError(
            f"{config_file()} has {JULIA} = {table!r}",
            allowed=f"a table [{JULIA}] with exe and project",
            remedy="correct it; the file is left as it is",
        )
    return table


def _edited(text: str, edit: Callable[[Any], None]) -> str:
    """`text` after `edit`, with its comments and its layout.

    Raises:
        ConfigError: not valid TOML, or more would change than `edit` does to the values.
    """
    import tomlkit

    wanted = _parsed(text)
    edit(wanted)
    try:
        document = tomlkit.parse(text)
        edit(document)
        changed = tomlkit.dumps(document)
        found = _parsed(changed)
    except Exception:  # tables in pieces, and dotted keys, are more than tomlkit can always edit
        found = {}
        changed = ""
    if _comparable(found) != _comparable(wanted):
        raise ConfigError(
            f"{config_file()} cannot be changed without changing other parts of it",
            allowed=f"a table [{JULIA}] in one piece",
            remedy=f"write {' and '.join(NAMES)} into it, or remove them, by hand; it is left as it is",
        )
    return changed


def _comparable(values: dict[str, Any]) -> str:
    """Values as text, in which NaN equals itself; a table [julia] without anything is as good as none."""
    return json.dumps(
        {key: value for key, value in values.items() if key != JULIA or value}, sort_keys=True, default=str
    )


def _write(text: str) -> None:
    path = config_file()
    try:
        content = text.encode()
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, UnicodeEncodeError) as error:
        raise ConfigError(
            f"{path} cannot be written ({error})",
            allowed="a folder that can be made, and paths that are text",
            remedy="name another file with UDLBRIDGE_CONFIG",
        ) from error
    with writing(path, ConfigError) as partial:
        partial.write_bytes(content)
