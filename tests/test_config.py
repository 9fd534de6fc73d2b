"""The configuration file: it is the user's, and ours is one table of it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udlbridge import config, data
from udlbridge.backends.julia import runtime
from udlbridge.data import sources
from udlbridge.errors import ConfigError

EXE, PROJECT = Path('/a "quoted" path/\\ of 🎉/julia'), Path("/environment")
NAMED = {"exe": str(EXE), "project": str(PROJECT)}


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the configuration file would be: in a folder that is not there yet."""
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(tmp_path / "udlbridge" / "config.toml"))
    return tmp_path / "udlbridge" / "config.toml"


def put(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


USERS = """# mine\r
title = "👋 \\"quoted\\" \\u00e9"  # as I like it\r

[other]\r
numbers = [1, 2.5, nan, -inf]
when = 2026-11-26T12:00:00Z
[other.nested]
deeper.still = { a = 1, b = "x" }

[[list]]
a = 1
[[list]]
a = 2
"""


def test_a_file_of_our_own_comes_and_goes(file: Path) -> None:
    assert config.julia() == (None, None)
    assert not config.forget_julia()
    assert config.write_julia(EXE, PROJECT) == file
    assert config.julia() == (str(EXE), str(PROJECT))
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {"julia": NAMED}
    assert config.forget_julia()
    assert config.julia() == (None, None)
    assert list(file.parent.iterdir()) == []


def test_what_the_user_wrote_stays_to_the_letter(file: Path) -> None:
    put(file, USERS)
    config.write_julia(EXE, PROJECT)
    assert file.read_bytes().startswith(USERS.encode())
    assert tomllib.loads(file.read_bytes().decode())["julia"] == NAMED
    config.forget_julia()
    assert file.read_bytes().rstrip() == USERS.encode().rstrip()


def test_the_users_own_part_of_our_table_stays(file: Path) -> None:
    put(file, '[julia] # which one\nexe = "old" # slow\n# a thought\nthreads = 3\n\n# of the next\n[next]\na = 1\n')
    config.write_julia(EXE, PROJECT)
    text = file.read_text(encoding="utf-8")
    assert all(
        words in text for words in ("[julia] # which one", " # slow", "# a thought\nthreads = 3", "# of the next")
    )
    assert tomllib.loads(text) == {"julia": {**NAMED, "threads": 3}, "next": {"a": 1}}
    config.forget_julia()
    text = file.read_text(encoding="utf-8")
    assert all(words in text for words in ("[julia] # which one", "# a thought\nthreads = 3", "# of the next"))
    assert tomllib.loads(text) == {"julia": {"threads": 3}, "next": {"a": 1}}


@pytest.mark.parametrize(
    "content", ["[julia]\n", "[julia.deep]\na = 1\n[x]\n[julia]\nproject='p'\n", "julia = { exe = 'a' }\n[x]\n"]
)
def test_tables_of_any_form(content: str, file: Path) -> None:
    put(file, content)
    before = tomllib.loads(content)
    config.write_julia(EXE, PROJECT)
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    assert found == {**before, "julia": {**before["julia"], **NAMED}}
    config.forget_julia()
    assert config.julia() == (None, None)


BROKEN = {
    "not TOML": ("[other]\na = 1\n[julia\n", r"not valid TOML \(.*line 3.*move the file away"),
    "twice": ("a = 1\na = 2\n", r"not valid TOML \(.*line 2"),
    "not text": (b"a = '\xff'", r"cannot be read.*UTF-8"),
    "no table": ("julia = 3\n", r"has julia = 3.*\[julia\] with exe and project"),
    "tables": ("[[julia]]\n", r"has julia = \[.*\[julia\] with exe and project"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_and_stays_as_it_is(name: str, file: Path) -> None:
    content, words = BROKEN[name]
    put(file, content)
    before = file.read_bytes()
    for use in (config.julia, config.forget_julia, lambda: config.write_julia(EXE, PROJECT)):
        with pytest.raises(ConfigError, match=words) as caught:
            use()
        assert caught.value.remedy
        assert str(file) in str(caught.value)
    assert file.read_bytes() == before


def test_numbers_are_no_paths(file: Path) -> None:
    put(file, "[julia]\nexe = 3\n")
    with pytest.raises(ConfigError, match=r"exe = 3 in \[julia\].*in quotes.*julia forget"):
        config.julia()
    assert config.forget_julia()
    assert config.julia() == (None, None)


def test_what_cannot_be_edited_is_not_edited(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(file, USERS)
    monkeypatch.setattr("tomlkit.dumps", lambda document: '[julia]\nexe = "a"\n')
    with pytest.raises(ConfigError, match=r"without changing other parts.*by hand"):
        config.write_julia(EXE, PROJECT)
    assert file.read_bytes() == USERS.encode()


def test_paths_that_are_no_text_and_folders_that_cannot_be(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        config.write_julia(Path("/\udcff"), PROJECT)
    assert not file.parent.exists()
    file.parent.write_text("a file")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.write_julia(EXE, PROJECT)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_stay(file: Path) -> None:
    put(file, USERS)
    file.chmod(0o600)
    config.write_julia(EXE, PROJECT)
    assert file.stat().st_mode & 0o777 == 0o600


VALUES = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    values=st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4),
    path=st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_any_file_and_any_path(values: dict, path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever TOML there is, our names read back, and all else as before."""
    import tomlkit

    values.pop("julia", None)
    text = tomlkit.dumps(values)
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # tomlkit itself writes some control characters wrong
        return
    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path_factory.mktemp("config") / "c.toml"
        patch.setenv("UDLBRIDGE_CONFIG", str(file))
        put(file, text)
        try:
            config.write_julia(Path(path), PROJECT)
        except ConfigError:
            assert file.read_bytes() == text.encode()
            return
        found = tomllib.loads(file.read_bytes().decode())
        assert found.pop("julia") == {"exe": str(Path(path)), "project": str(PROJECT)}
        assert repr(found) == repr(before)


@pytest.mark.parametrize(
    "text", ["a = " + "9" * 5000, "a = " + "[" * 100_000, "[julia]\nexe = " + "[" * 3000 + "]" * 3000]
)
def test_numbers_and_brackets_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = tmp_path / "c.toml"
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(file))
    file.write_text(text)
    for act in (config.julia, lambda: config.write_julia(Path("/julia"), Path("/env")), config.forget_julia):
        with pytest.raises(ConfigError):
            act()
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("1", True), ("yes", True), ("TRUE", True), ("on", True), ("0", False), ("no", False), ("", False)],
)
def test_words_that_switch(monkeypatch: pytest.MonkeyPatch, word: str, meaning: bool) -> None:
    monkeypatch.setenv("UDLBRIDGE_NO_DOWNLOAD", word)
    assert config.switched_on("UDLBRIDGE_NO_DOWNLOAD") is meaning


def test_another_word_is_refused_wherever_one_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UDLBRIDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("UDLBRIDGE_NO_DOWNLOAD", "perhaps")
    monkeypatch.delenv("UDLBRIDGE_DATA", raising=False)
    for read in (lambda: data.mnist("test"), data.mnist1d):
        with pytest.raises(ConfigError, match=r"UDLBRIDGE_NO_DOWNLOAD='perhaps'.*true"):
            read()
    monkeypatch.setenv("UDLBRIDGE_NO_INSTALL", "2")
    monkeypatch.setenv("UDLBRIDGE_CONFIG", str(tmp_path / "none.toml"))
    for name in ("UDLBRIDGE_JULIA_EXE", "UDLBRIDGE_JULIA_PROJECT", "PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    if (found := runtime.availability()).reason != "the Python package juliacall is not installed" and not found.ok:
        assert "UDLBRIDGE_NO_INSTALL='2'" in found.reason


@pytest.mark.parametrize(("word", "meaning"), [("process", "process"), (" InProcess", "inprocess"), ("", None)])
def test_where_julia_runs(monkeypatch: pytest.MonkeyPatch, word: str, meaning: str | None) -> None:
    monkeypatch.setenv("UDLBRIDGE_JULIA", word)
    assert config.julia_place() == meaning


@pytest.mark.parametrize(("word", "meaning"), [("600", 600.0), ("0.5", 0.5), ("", 0.0)])
def test_how_long_julia_waits(monkeypatch: pytest.MonkeyPatch, word: str, meaning: float) -> None:
    monkeypatch.setenv("UDLBRIDGE_JULIA_LINGER", word)
    assert config.julia_linger() == meaning


@pytest.mark.parametrize(
    ("name", "word", "words"),
    [
        ("UDLBRIDGE_JULIA", "thread", r"UDLBRIDGE_JULIA='thread'\. Allowed: process or inprocess"),
        ("UDLBRIDGE_JULIA_LINGER", "long", r"UDLBRIDGE_JULIA_LINGER='long'\. Allowed: a number of seconds"),
        ("UDLBRIDGE_JULIA_LINGER", "-1", "Allowed: a number of seconds"),
        ("UDLBRIDGE_JULIA_LINGER", "nan", "Allowed: a number of seconds"),
        ("UDLBRIDGE_JULIA_LINGER", "inf", "Allowed: a number of seconds"),
    ],
)
def test_settings_of_julias_process_that_are_none(
    monkeypatch: pytest.MonkeyPatch, name: str, word: str, words: str
) -> None:
    monkeypatch.setattr(runtime, "_STATE", runtime._State())
    monkeypatch.setenv(name, word)
    with pytest.raises(ConfigError, match=words):
        (config.julia_place if name == "UDLBRIDGE_JULIA" else config.julia_linger)()
    state = runtime.availability()  # where it is looked for, before anything starts
    assert not state.ok
    if state.reason != "the Python package juliacall is not installed":
        assert f"{name}='{word}'" in state.reason


def test_home_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("CONFIG", "DATA", "CACHE", "JULIA_EXE", "JULIA_PROJECT"):
        monkeypatch.setenv(f"UDLBRIDGE_{name}", f"~/{name.lower()}")
    assert config.config_file() == tmp_path / "config"
    assert sources.cache_folder() == tmp_path / "cache" / "mnist"
    assert sources.named_folder(None) == tmp_path / "data"
    assert sources.named_folder("~/other") == tmp_path / "other"
    found = runtime.location()
    assert found is not None
    assert (found.exe, found.project) == (tmp_path / "julia_exe", tmp_path / "julia_project")
