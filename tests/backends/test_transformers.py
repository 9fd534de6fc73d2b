"""Models of the library `transformers`, small and random, at the first try: kernels, stores, checks, and commands.

What needs transformers is slow: importing it takes seconds.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import udlbridge as ub
from helpers import assert_within_budget, udlbridge

pytestmark = pytest.mark.slow

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 8}
GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.integers(0, 11, (5, 6))
MASK = (np.arange(6) < np.array([6, 4, 3, 5, 2])[:, None]).astype(np.int64)
IMAGES = GENERATOR.standard_normal((5, 3, 8, 8))


def library() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install 'udlbridge[gpt2]'")


def bert() -> Any:
    transformers = library()
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=11, max_position_embeddings=6, num_labels=3, **SIZES)
    return transformers.BertForSequenceClassification(config).double().eval()


def gpt2() -> Any:
    transformers = library()
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config).double().eval()


def vit() -> Any:
    transformers = library()
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)
    return transformers.ViTForImageClassification(config).double().eval()


def llama() -> Any:
    """Its norms are taken in single precision."""
    transformers = library()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=11, num_key_value_heads=1, max_position_embeddings=8, **SIZES)
    return transformers.LlamaForCausalLM(config).double().eval()


NETWORKS: dict[str, tuple[Any, Any]] = {
    "bert": (bert, {"input_ids": TOKENS, "attention_mask": MASK}),
    "bert, tokens alone": (bert, TOKENS),
    "gpt2": (gpt2, TOKENS),
    "gpt2, padded": (gpt2, {"input_ids": TOKENS, "attention_mask": MASK}),
    "llama": (llama, TOKENS),
    "vit": (vit, IMAGES),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_spectrum_store_and_check(name: str, tmp_path: Path) -> None:
    make, x = NETWORKS[name]
    module = make()
    kernel = ub.ntk(module, x, output="logits")
    assert_within_budget(kernel, ub.ntk(module, x, output="logits", method="plain"))
    assert_within_budget(kernel, by_hand(module, x))
    assert ub.spectrum(module, x=x, output="logits").verdict in ("PSD", "rounding")
    store = ub.compute_kernel(module, x, tmp_path / "K.zarr", output="logits")
    np.testing.assert_array_equal(np.asarray(store), kernel)
    report = ub.check(module, x, output="logits")
    assert report.ok, str(report)


def by_hand(module: Any, x: Any) -> np.ndarray:
    """The trace of the kernel from one backward pass for each output of each sample."""
    values = list(module.parameters())
    named = x if isinstance(x, dict) else {"pixel_values" if x.ndim == 4 else "input_ids": x}
    rows = []
    for place in range(5):
        y = module(**{key: torch.tensor(value[[place]]) for key, value in named.items()}).logits.flatten()
        found = [
            torch.autograd.grad(v, values, retain_graph=True, allow_unused=True, materialize_grads=True) for v in y
        ]
        rows.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in found]))
    jacobian = torch.stack(rows)
    return torch.einsum("iap,jap->ij", jacobian, jacobian).numpy()


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_at_the_command_line(name: str, tmp_path: Path) -> None:
    make, x = NETWORKS[name]
    library()
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})

        def network():
            import test_transformers
            return test_transformers.{make.__name__}()
        """)
    )
    file = tmp_path / ("x.npz" if isinstance(x, dict) else "x.npy")
    np.savez(file, **x) if isinstance(x, dict) else np.save(file, x)
    words = ["--model", f"{tmp_path}/mine.py:network", "--output", "logits", "--samples", file, "--n", 5]
    done = udlbridge("kernel", *words, "--out", tmp_path / "K.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "K.npy"), ub.ntk(make(), x, output="logits"))
    for command in ("spectrum", "check"):
        done = udlbridge(command, *words)
        assert done.returncode == 0, done.stdout + done.stderr
