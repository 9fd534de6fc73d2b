"""Text files as text, with one kind of error for whatever is in the way; and words that are nearly right."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Iterable
from functools import partial
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


def with_article(word: str) -> str:
    """The name of a class or an option after "a" or "an", as it is spoken: an ndarray, a uint8, an LSTM, a Graph."""
    bare = word.lstrip("_")
    if bare[:2].isupper():  # letters, each by its name
        return f"{'an' if bare[0] in 'AEFHILMNORSX' else 'a'} {word}"
    lower = bare.lower()
    vowel = lower.startswith(("a", "e", "i", "o", "u", "nd")) and not lower.startswith(
        ("eu", "one", "udl", "uint", "uni", "use")
    )
    return f"{'an' if vowel else 'a'} {word}"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: "1 tile", "2,000 tiles"; `many` is their name where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def kind_of(value: object) -> str:
    """What a value is, for an error: "an int", "a Graph"."""
    return with_article(type(value).__name__)


def completion(names: Iterable[str]) -> Callable[[], list[str]]:
    """The `__dir__` of a public module: its names for users alone, and not what it imports."""
    return partial(sorted, names)


def nearest(word: object, choices: Iterable[str]) -> str:
    """What to add to "choose one of them": ", perhaps 'sigmoid'" for "sigmod", and nothing where none is near.

    A choice is near where most of its letters are in the word in order, or where one begins with the other.
    """
    if not isinstance(word, str) or not word:
        return ""
    known = {choice.lower(): choice for choice in choices}
    lower = word.lower()
    found = difflib.get_close_matches(lower, known, n=1, cutoff=0.6)
    found = found or [
        choice for choice in known if len(lower) > 2 and (choice.startswith(lower) or lower.startswith(choice))
    ]
    return f", perhaps {known[found[0]]!r}" if found else ""
