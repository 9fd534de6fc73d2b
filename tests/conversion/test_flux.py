"""Flux chains that juliacall has made in this process."""

from __future__ import annotations

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge import errors


@pytest.mark.julia
def test_a_chain_of_juliacall() -> None:
    from udlbridge.backends.julia import owner, runtime

    module = owner.run(runtime.start)
    layers = "Dense(3 => 4, NNlib.relu), Flux.LayerNorm(4), Dense(4 => 2; bias=false), NNlib.softmax"
    chain = module.seval(f"Chain({layers})")
    model = ub.from_flux(chain)
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "LayerNorm", "Dense", "Softmax"]
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert_within_budget(ub.outputs(model, x, backend="reference"), np.asarray(chain(x.T)).T)
    with pytest.raises(errors.ConversionError, match=r"layer 1 is the function sum, which UDLBridge cannot translate"):
        ub.from_flux(module.seval("Chain(Dense(3 => 4), sum)"))


def test_what_is_neither_a_file_nor_a_chain() -> None:
    with pytest.raises(errors.ConversionError, match=r"from_flux of a Model\. Allowed: the path of a file"):
        ub.from_flux(ub.Model([ub.Dense(2, 1)]))  # type: ignore[arg-type]
