"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import udlbridge as ub
from udlbridge import atomic, errors
from udlbridge.cli import group


def test_a_file_appears_with_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with atomic.replacing(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() != text
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("full"), KeyboardInterrupt(), ValueError("other")])
def test_a_file_stays_as_it_is_where_writing_fails(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write() -> None:
        with atomic.replacing(path) as partial:
            partial.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_have_nothing_in_common(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic.replacing(path) as first:
        first.write_text("first and long")
        with atomic.replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first and long"


def test_two_threads_write_one_file(tmp_path: Path) -> None:
    """Both finish, and the file is that of one of them: with one name for both, one took the other's file away."""
    path = tmp_path / "a"
    texts = ["short", "long " * 100_000]
    written = threading.Barrier(2)

    def write(text: str) -> None:
        with atomic.replacing(path) as partial:
            partial.write_text(text)
            written.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, texts))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_threads_save_one_model_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    models = [ub.Model([ub.Dense(20, 10 * (i + 1))], seed=i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda model: model.save(path), models))
            assert ub.Model.load(path) in models
    assert list(tmp_path.iterdir()) == [path]


@given(names=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60))
def test_any_name_that_the_disk_allows(names: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    name = (names * 60).encode()[:255].decode(errors="ignore")
    if name in (".", ".."):
        return
    with atomic.replacing(folder / name) as partial:
        partial.write_text("x")
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions(tmp_path: Path, umask: int) -> None:
    """New files have those of the umask, and others keep theirs."""
    path = tmp_path / "a"
    for mode in (0o666 & ~umask, 0o600):
        with atomic.replacing(path) as partial:
            partial.write_text("x")
        assert path.stat().st_mode & 0o777 == mode
        path.chmod(0o600)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, real = tmp_path / "link", tmp_path / "real" / "file"
    link.symlink_to(real)
    for text in ("new", "newer"):
        with atomic.replacing(link) as partial:
            partial.write_text(text)
        assert link.is_symlink()
        assert real.read_text() == text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with atomic.writing(pipe, errors.OptionError) as target:
        target.write_text("x")
    reader.join()
    assert read == ["x"]
    assert pipe.is_fifo()


def test_errors_are_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "file" / "a", "file is not a folder")):
        with pytest.raises(errors.StoreError, match=words) as caught, atomic.writing(path, errors.StoreError):
            pass
        assert caught.value.remedy
    with (
        pytest.raises(errors.StoreError, match=r"cannot be written \(full\)"),
        atomic.writing(tmp_path / "a", errors.StoreError),
    ):
        raise OSError("full")
    with (
        pytest.raises(errors.DataError, match="damaged"),
        atomic.writing(tmp_path / "a", errors.StoreError),
    ):
        raise errors.DataError("damaged")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_protected_targets(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(0o400)
    with pytest.raises(errors.OptionError, match="protected"):
        atomic.check_target(path, errors.OptionError)


MODEL = ("--model", "notebook_method1", "--n", "2")


@pytest.mark.parametrize(
    "words",
    [
        ("reproduce", "--backend", "reference"),
        ("check", *MODEL, "--backend", "torch,reference"),
        ("spectrum", *MODEL, "--backend", "reference"),
        ("kernel", *MODEL, "--backend", "reference", "--out", "k.npy"),
        ("align", "--n", "40"),
        ("practicals", "run", "losses"),
    ],
    ids=lambda words: words[0],
)
def test_commands_look_at_their_targets_first(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("udlbridge.backends.get", lambda *_, **__: pytest.fail("an engine is set up for nothing"))
    (tmp_path / "file").touch()
    targets = [("--json", "file/x.json"), ("--json", ".")]
    if words[0] in ("reproduce", "align", "practicals"):
        targets.append(("--plot", "file/plots"))
    for option, target in targets:
        result = CliRunner().invoke(group, [*words, option, target], standalone_mode=False)
        assert isinstance(result.exception, errors.OptionError), (option, result)
        assert f"{option} {target} cannot be written" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_replaces_a_file_at_once(tmp_path: Path) -> None:
    from udlbridge.cli.targets import write_json

    target = tmp_path / "r.json"
    target.write_text("before")
    with pytest.raises(TypeError):
        write_json({"a": object()}, target)
    assert target.read_text() == "before"
    write_json({"a": 1}, target)
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "permissions"), (errno.EACCES, "permissions")],
)
def test_what_helps_depends_on_what_is_lacking(tmp_path: Path, number: int, remedy: str) -> None:
    with pytest.raises(errors.StoreError, match=remedy), atomic.writing(tmp_path / "file", errors.StoreError):
        raise OSError(number, os.strerror(number))
