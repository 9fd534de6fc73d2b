"""Model and run files that are whole safetensors files with JSON in them that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import udlbridge as ub
from faults.mutations import mutated
from faults.readers import MODEL, READERS
from udlbridge import errors

SPEC = json.dumps(MODEL.spec())
TEXTS = {
    "deep": "[" * 100_000,
    "deep layers": SPEC.replace('"layers": [', '"layers": [' + "[" * 900, 1),
    "huge integer": SPEC.replace("5", "9" * 5000, 1),
    "large integer": SPEC.replace('"in": 5', '"in": ' + "9" * 30, 1).replace("5,", "9" * 30 + ",", 1),
    "branches in branches": '{"format": 1, "dtype": "float32", "layers": ['
    + '{"kind": "Residual", "layers": [' * 300
    + "]}" * 300
    + "]}",
    "dtype": SPEC.replace("float32", "fl(o)at,32", 1),
    "a list for a dtype": SPEC.replace('"float32"', '["float32"]', 1),
    "a number": "1",
    "NaN": SPEC.replace("4", "NaN", 1),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_model_with_a_spec_that_cannot_be(tmp_path: Path, case: str) -> None:
    save_file(MODEL.arrays, tmp_path / "m.safetensors", metadata={"udlbridge": TEXTS[case]})
    with pytest.raises(errors.UDLBridgeError):
        ub.Model.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("key", "kind"), [("udlbridge", "model"), ("udlbridge_run", "run")])
def test_damaged_words_in_whole_files(tmp_path: Path, key: str, kind: str) -> None:
    """100 damaged specs: of a run, its plan and epochs too."""
    path = READERS[kind].make(tmp_path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    words = json.loads(content[8 : 8 + size])["__metadata__"][key].encode()
    arrays = load_file(path)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        text = mutated(words, generator).decode(errors="replace")
        save_file(arrays, path, metadata={key: text})
        try:
            READERS[kind].read(path)
        except errors.UDLBridgeError:
            refused += 1
    assert refused > 50
