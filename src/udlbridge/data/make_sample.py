"""Make the MNIST sample that the package ships: `python -m udlbridge.data.make_sample FOLDER`.

FOLDER has the full training files. The sample is their first 1,000 images and labels as IDX files, packed by xz.
"""

from __future__ import annotations

import lzma
import struct
import sys
from pathlib import Path

from udlbridge.data import idx, sources

COUNT = 1000


def main(folder: Path) -> None:
    """Write the packed files beside this script."""
    for name, target in sources.SAMPLE.items():
        array = idx.parse(sources.from_folder(folder, name), name)[:COUNT]
        magic = idx.IMAGES_MAGIC if array.ndim == 3 else idx.LABELS_MAGIC
        content = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()
        packed = lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
        (Path(__file__).parent / target).write_bytes(packed)
        print(f"{target}: {len(packed):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
