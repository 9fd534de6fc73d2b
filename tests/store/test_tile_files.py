"""Writing tiles: whole files or none, whatever the file system can do."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udlbridge.store import tile_files
from udlbridge.store.tile_files import BUFFER, DirectWriter, TileFiles


def direct(path: Path, flags: int, *rest: int) -> int:
    """`os.open` of a file system that refuses O_DIRECT."""
    if flags & getattr(os, "O_DIRECT", 0):
        raise OSError(errno.EINVAL, "no direct writes here")
    return real_open(path, flags, *rest)


real_open, real_write = os.open, os.write


@given(
    size=st.one_of(st.integers(1, 10_000), st.sampled_from([4096, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER + 4097])),
    supported=st.booleans(),
)
def test_every_byte_arrives(size: int, supported: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tiles")
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        if not supported:
            patch.setattr(os, "open", direct)
        writer = DirectWriter()
        writer.write(folder / "c" / "0", memoryview(data))
        writer.write(folder / "c" / "0", memoryview(data[::-1].copy()))  # in the place of the first
    assert (folder / "c" / "0").read_bytes() == data[::-1].tobytes()
    assert [file.name for file in (folder / "c").iterdir()] == ["0"]


@pytest.mark.parametrize("supported", [True, False])
def test_a_full_disk_leaves_the_old_file_and_no_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    writer = DirectWriter()
    writer.write(tmp_path / "0", memoryview(b"old"))
    written = 0

    def full(file: int, data: memoryview) -> int:
        nonlocal written
        if written >= BUFFER:
            raise OSError(errno.ENOSPC, "No space left on device")
        written += len(data[:BUFFER])
        return real_write(file, data[:BUFFER])

    monkeypatch.setattr(os, "write", full)
    if not supported:
        monkeypatch.setattr(os, "open", direct)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.write(tmp_path / "0", memoryview(bytes(3 * BUFFER)))
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "0").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["0"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda file, data: real_write(file, data[:8192]))
    data = np.random.default_rng(0).bytes(50_000)
    DirectWriter().write(tmp_path / "0", memoryview(data))
    assert (tmp_path / "0").read_bytes() == data


def test_threads_take_turns(tmp_path: Path) -> None:
    writer = DirectWriter()
    pieces = [np.full(200_000, index, dtype=np.uint8) for index in range(8)]
    threads = [
        threading.Thread(target=writer.write, args=(tmp_path / str(index), memoryview(piece)))
        for index, piece in enumerate(pieces)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, piece in enumerate(pieces):
        assert (tmp_path / str(index)).read_bytes() == piece.tobytes()


def test_zarr_writes_all_its_files_this_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    seen: list[str] = []
    write = DirectWriter.write

    def noted(self: DirectWriter, path: Path, *pieces: memoryview) -> None:
        seen.append(path.name)
        write(self, path, *pieces)

    monkeypatch.setattr(tile_files.DirectWriter, "write", noted)
    group = zarr.create_group(TileFiles(tmp_path / "a.zarr"))
    values = np.random.default_rng(0).standard_normal((300, 300))
    group.create_array("large", shape=values.shape, chunks=(300, 300), dtype="f8", compressors=None)[...] = values
    group.create_array("small", shape=(10,), chunks=(10,), dtype="f8", compressors=None)[...] = values[0, :10]
    assert seen == ["zarr.json", "zarr.json", "0", "zarr.json", "0"]
    read = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(read["large"][...], values)
    np.testing.assert_array_equal(read["small"][...], values[0, :10])
