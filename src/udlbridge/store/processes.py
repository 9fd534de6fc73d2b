"""Which process wrote something, so that another one on the same machine can tell that it is gone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Its number, where that means something, and when it began, as far as the system says."""
    number = os.getpid()
    return {"process": number, "machine": _machine(), "began": _began(number)}


def is_gone(words: str) -> bool:
    """Whether it is certain that the process that wrote these words, with `this_process` among them, is gone."""
    try:
        found = json.loads(words)
        number, machine, began = int(found["process"]), found["machine"], found["began"]
    except (ValueError, KeyError, TypeError):
        return False
    if number <= 0 or machine is None or machine != _machine():
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    now = _began(number)
    return began is not None and now is not None and now != began


def _machine() -> str | None:
    """This start of this machine, and what numbers its processes; None where the system does not say."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(number: int) -> str | None:
    """When a process began, in the ticks of the machine; "gone" for one that has ended, and was not waited for yet."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "gone" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None
