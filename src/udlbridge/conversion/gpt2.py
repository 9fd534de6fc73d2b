"""GPT-2 as a `Model`: its layers are those of `models.gpt2`, its weights are copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from udlbridge.errors import ConversionError
from udlbridge.networks.model import Model
from udlbridge.networks.models import gpt2
from udlbridge.texts import kind_of

NEEDED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
"""Settings of a GPT2Config that `models.gpt2` has as well; others would make another network."""


def from_gpt2(module: Any) -> Model:
    """The `Model` of a `transformers.GPT2LMHeadModel`: from tokens (n, T) to the logits of the next token (n, V).

    For the weights of OpenAI: `from_gpt2(GPT2LMHeadModel.from_pretrained("gpt2"))`, which downloads them (0.5 GB) with
    the package `transformers` (`pip install "udlbridge[gpt2]"`). The readout is tied to the table of tokens there, and
    a copy of it here. Dropout passes everything on.

    Args:
        module: the network; it is not changed.

    Raises:
        ConversionError: something else, a variant that is no GPT-2, or weights that are not float32 or float64.

    Source: Radford et al. (2019).

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel  # doctest: +SKIP
        >>> ub.from_gpt2(GPT2LMHeadModel(GPT2Config(n_layer=1)).eval()).takes_tokens  # doctest: +SKIP
        True
    """
    config: Any = getattr(module, "config", None)
    if getattr(config, "model_type", None) != "gpt2" or not hasattr(module, "lm_head"):
        raise ConversionError(
            f"{kind_of(module)} in the place of GPT-2",
            allowed="a transformers.GPT2LMHeadModel",
            remedy='GPT2LMHeadModel.from_pretrained("gpt2")',
        )
    for name, known in NEEDED.items():
        if getattr(config, name, known[0]) not in known:
            raise ConversionError(
                f"GPT-2 with {name}={getattr(config, name)!r}",
                allowed=" or ".join(map(repr, known)),
                remedy="take a network without this variation",
            )
    state = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    dtype = state["transformer.wte.weight"].dtype.name
    if dtype not in ("float32", "float64"):
        raise ConversionError(f"weights of {dtype}", allowed="float32, float64", remedy="module.float()")
    width, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    shell = gpt2(config.vocab_size, config.n_positions, width, config.n_head, config.n_layer, inner, dtype=dtype)
    return shell.with_params(_renamed(state, config.n_layer))


def _renamed(state: dict[str, np.ndarray], blocks: int) -> dict[str, np.ndarray]:
    """Arrays of a state dict by our names; GPT-2's affine maps are stored (in, out), ours (out, in)."""
    params = {"0.weight": state["transformer.wte.weight"], "1.weight": state["transformer.wpe.weight"]}
    for block in range(blocks):
        theirs, attend, feed = f"transformer.h.{block}.", 2 + 2 * block, 3 + 2 * block
        for layer, norm in ((attend, "ln_1"), (feed, "ln_2")):
            params |= {f"{layer}.0.{part}": state[f"{theirs}{norm}.{part}"] for part in ("weight", "bias")}
        params[f"{attend}.1.in_proj_weight"] = state[f"{theirs}attn.c_attn.weight"].T
        params[f"{attend}.1.in_proj_bias"] = state[f"{theirs}attn.c_attn.bias"]
        maps = ((f"{attend}.1.out_proj", "attn.c_proj"), (f"{feed}.1", "mlp.c_fc"), (f"{feed}.2", "mlp.c_proj"))
        for ours, name in maps:
            params[f"{ours}.weight"] = state[f"{theirs}{name}.weight"].T
            params[f"{ours}.bias"] = state[f"{theirs}{name}.bias"]
    last = 2 + 2 * blocks
    params |= {f"{last}.{part}": state[f"transformer.ln_f.{part}"] for part in ("weight", "bias")}
    return {**params, f"{last + 2}.weight": state["lm_head.weight"]}
