"""Damage to files, drawn from a seed: what disks, networks and people do to them, with and without intent."""

from __future__ import annotations

import re

import numpy as np


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The bytes of a file, damaged in one of several ways."""
    damage = MUTATIONS[generator.integers(len(MUTATIONS))]
    return damage(content, generator)


def _offset(content: bytes, generator: np.random.Generator) -> int:
    """Anywhere; as often in the first kilobyte, where headers are."""
    return int(generator.integers(min(len(content), 1024) if generator.integers(2) else len(content))) if content else 0


def flip_bits(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four bits."""
    found = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        if found:
            found[_offset(content, generator)] ^= 1 << int(generator.integers(8))
    return bytes(found)


def truncate(content: bytes, generator: np.random.Generator) -> bytes:
    """Its beginning alone; perhaps nothing."""
    return content[: _offset(content, generator)]


def overwrite(content: bytes, generator: np.random.Generator) -> bytes:
    """A piece with other bytes: zeros, or any."""
    start, size = _offset(content, generator), int(generator.integers(1, 64))
    piece = bytes(size) if generator.integers(2) else generator.bytes(size)
    return content[:start] + piece[: len(content) - start] + content[start + size :]


def repeat(content: bytes, generator: np.random.Generator) -> bytes:
    """A piece of it once more, behind itself."""
    start, size = _offset(content, generator), int(generator.integers(1, 256))
    return content[: start + size] + content[start:]


def large_number(content: bytes, generator: np.random.Generator) -> bytes:
    """A number in the text by another: negative, with a fraction, of 19 or of 5,000 digits."""
    numbers = list(re.finditer(rb"[0-9]+", content[:65536]))
    if not numbers:
        return truncate(content, generator)
    one = numbers[generator.integers(len(numbers))]
    others = (b"-1", b"0", b"0.5", b"1e999", b"9" * 19, b"9" * 5000, b"null", b'"1"')
    return content[: one.start()] + others[generator.integers(len(others))] + content[one.end() :]


def deep(content: bytes, generator: np.random.Generator) -> bytes:
    """Brackets in brackets, 100,000 deep, in the place of a value."""
    found = list(re.finditer(rb"(?<=[:=])\s*(\"[^\"]*\"|[0-9.]+|\[\])", content[:65536]))
    if not found:
        return b"[" * 100_000
    one = found[generator.integers(len(found))]
    return content[: one.start()] + b"[" * 100_000 + b"]" * 100_000 + content[one.end() :]


def other_word(content: bytes, generator: np.random.Generator) -> bytes:
    """A word in quotes by another of the same length, so that lengths and offsets stay."""
    words = list(re.finditer(rb'"([A-Za-z_0-9]+)"', content[:65536]))
    if not words:
        return flip_bits(content, generator)
    one = words[generator.integers(len(words))]
    size = len(one[1])
    other = (b"C64BOOLU8F8_E5M2nan" * 10)[:size] if generator.integers(2) else b"\xc2\xb2"[:size].ljust(size, b"x")
    return content[: one.start(1)] + other + content[one.end(1) :]


MUTATIONS = (flip_bits, truncate, overwrite, repeat, large_number, deep, other_word)
