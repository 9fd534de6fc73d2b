"""GPT-2 with random weights, small, against transformers, in every engine.

What needs transformers is slow: importing it takes seconds.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from udlbridge.errors import ConversionError
from udlbridge.tolerances import relative_difference


def random_gpt2(dtype: str = "float64", **settings: Any) -> Any:
    """A GPT-2 of two blocks whose every number is random, scales and biases too."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'udlbridge[gpt2]'"
    )
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 3}
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **settings)).eval()
    for value in module.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return module.to(getattr(torch, dtype))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "budget"), [("float64", 1e-12), ("float32", 1e-5)])
def test_logits_of_the_next_token(dtype: str, budget: float, backend: str) -> None:
    module = random_gpt2(dtype)
    import torch

    model = ub.from_gpt2(module)
    tokens = np.random.default_rng(0).integers(0, 97, (3, 11))
    with torch.no_grad():
        expected = module(input_ids=torch.tensor(tokens)).logits[:, -1].numpy()
    found = ub.outputs(model, tokens, backend=backend)
    assert found.dtype == dtype
    assert relative_difference(found, expected) <= budget


@pytest.mark.slow
def test_beams_and_greedy_choice_are_those_of_generate() -> None:
    module = random_gpt2()
    import torch

    def next_logits(tokens: np.ndarray) -> np.ndarray:
        return ub.outputs(model, tokens, backend="reference")

    model, prompt = ub.from_gpt2(module), [5, 17, 40]
    for beams in (1, 4):
        settings = {"num_beams": beams, "length_penalty": 0.0, "do_sample": False, "eos_token_id": None}
        written = module.generate(torch.tensor([prompt]), max_new_tokens=6, pad_token_id=0, **settings)[0].tolist()
        found = ub.decoding.beam_search(next_logits, prompt, beams=beams, length=6)[0]
        assert list(found.tokens) == written


def test_what_is_no_gpt2() -> None:
    for module in (object(), SimpleNamespace(config=SimpleNamespace(model_type="bert"), lm_head=None)):
        with pytest.raises(ConversionError, match="in the place of GPT-2"):
            ub.from_gpt2(module)
    variant = SimpleNamespace(config=SimpleNamespace(model_type="gpt2", activation_function="relu"), lm_head=None)
    with pytest.raises(ConversionError, match="activation_function='relu'"):
        ub.from_gpt2(variant)


@pytest.mark.slow
def test_half_precision_is_refused() -> None:
    with pytest.raises(ConversionError, match="float16"):
        ub.from_gpt2(random_gpt2("float16"))


def test_size_of_gpt2() -> None:
    shapes = ub.models.gpt2(vocabulary=50, length=8, width=12, heads=3, blocks=1).param_shapes()
    assert shapes["3.1.weight"] == (48, 12)
    # GPT-2 has 124,439,808 parameters, and the readout is not counted there.
    per_block = 12 * 768**2 + 13 * 768
    assert 50257 * 768 * 2 + 1024 * 768 + 12 * per_block + 2 * 768 == 124_439_808 + 50257 * 768 == 163_037_184
