"""Text files as text: read as UTF-8, with one kind of error for whatever is in the way."""

from __future__ import annotations

import errno
from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file, its line ends as they are.

    Raises:
        OSError: it is not there, cannot be read, or is not text in UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"{path.name} is not text in UTF-8") from error
