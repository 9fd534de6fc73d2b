"""Which file of a tile belongs where: a checksum alone says that a tile is whole, and not which tile it is.

A file that only grows has a record for every tile that was written: its block row and column, how many of their samples
it covers, and the checksum in the tile's own file. Each record has a checksum of its own, which the store's random
name is part of, so that a torn record, or one of another store, counts as none. A tile whose checksum was never
recorded for its place is damaged, whatever its file says.

The record is written before the file takes the tile's place: a reader then never finds a whole tile without one. All
records of a place count, not the last alone: samples are only ever appended, so that an earlier file of the same
place holds the same entries, for as many samples as its record says.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from udlbridge.kernels.tiling import Tile
from udlbridge.store.files import Files
from udlbridge.store.names import RECORDS

_RECORD = struct.Struct("<QQIIII")
"""Block row, block column, samples of the row and of the column, the checksum of the tile, that of the record."""


class TileRecords:
    """What was recorded of the tiles of one store. `there`: whether their file was, when it was read last.

    Args:
        files: of the store.
        name: the store's random name.
    """

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._seed = zlib.crc32(name.encode())
        self._covered: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._read = 0
        self.there = False

    def holds(self, tile: Tile, checksum: int) -> bool:
        """Whether a file with that checksum was written as this tile, and covers its samples."""
        covered = self._covered.get((tile.row, tile.column, checksum))
        return covered is not None and covered[0] >= tile.shape[0] and covered[1] >= tile.shape[1]

    def holds_less(self, tile: Tile, checksum: int) -> bool:
        """Whether a file with that checksum was written as this tile when the store had fewer samples."""
        return (tile.row, tile.column, checksum) in self._covered and not self.holds(tile, checksum)

    def refresh(self) -> None:
        """Read what was recorded since the last time, by whatever handle; there need not be a file.

        Raises:
            OSError: the file cannot be read, or is something else than a regular file.
        """
        try:
            size = self._files.size(RECORDS)
        except FileNotFoundError:
            self.there = False
            return
        self.there = True
        if size < self._read:
            self._covered, self._read = {}, 0
        if size - self._read < _RECORD.size:
            return
        rest = b""  # a record that is torn, or being written, stays for the next time
        for piece in self._files.pieces(RECORDS, self._read):
            rest += piece
            whole = len(rest) // _RECORD.size * _RECORD.size
            for fields in _RECORD.iter_unpack(rest[:whole]):
                self._take(*fields)
            self._read += whole
            rest = rest[whole:]

    def add(self, tiles: Sequence[tuple[Tile, int]]) -> None:
        """Record that files with these checksums are written as these tiles, as far as it is not recorded yet.

        A torn record at the end is written over.

        Raises:
            OSError: as of writing.
        """
        new = [(tile.row, tile.column, *tile.shape, checksum) for tile, checksum in tiles]
        new = [fields for fields in new if self._covered.get((*fields[:2], fields[4])) != fields[2:4]]
        if not new:
            return
        records = [(*fields, self._checksum(*fields)) for fields in new]
        self._files.append(RECORDS, b"".join(_RECORD.pack(*record) for record in records), _RECORD.size)
        for record in records:
            self._take(*record)

    def flush(self) -> None:
        """Wait until what was recorded outlasts a loss of power.

        Raises:
            OSError: the disk refuses.
        """
        self._files.flush(RECORDS)

    def _take(self, row: int, column: int, rows: int, columns: int, checksum: int, own: int) -> None:
        if own != self._checksum(row, column, rows, columns, checksum):
            return
        key = row, column, checksum
        before = self._covered.get(key, (0, 0))
        self._covered[key] = max(before[0], rows), max(before[1], columns)

    def _checksum(self, row: int, column: int, rows: int, columns: int, checksum: int) -> int:
        return zlib.crc32(struct.pack("<QQIII", row, column, rows, columns, checksum), self._seed)
