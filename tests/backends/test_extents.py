"""What an affine site says of its positions before they are cut is what is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import udlbridge as ub
from architectures import batch, image_networks, sequence_networks, shaken, wide_networks
from modules import NETWORKS, build
from udlbridge.backends.pytorch.sites import Affine, Site
from udlbridge.backends.pytorch.tensors import evaluate, tensor, tensors


def check_extent(site: Site) -> None:
    if isinstance(site, Affine):
        assert tuple(site.inputs(site.x).shape[1:]) == site.extent


@pytest.mark.parametrize("name", NETWORKS)
def test_extents_of_modules(name: str) -> None:
    module, x = build(name)
    network = ub.as_network(module.eval())
    samples, params = network.checked_batch(x, "x"), network.tensors("cpu")
    if network.recipe(network.trainable, params, "cpu").groups:
        for site in network.observed(network.trainable, params, network.inputs(samples, "cpu")).sites:
            check_extent(site)


@settings(max_examples=20)
@given(network=st.one_of(image_networks(), sequence_networks(), wide_networks()))
def test_extents_of_chains(network: tuple[ub.Model, tuple[int, ...]]) -> None:
    check_chain(*network)


def test_extents_of_groups() -> None:
    layers = [ub.Conv2d(4, 6, (3, 2), stride=2, groups=2), ub.Flatten(), ub.Dense(54, 2)]
    check_chain(shaken(layers), (4, 7, 6))


def check_chain(model: ub.Model, shape: tuple[int, ...]) -> None:
    def observe(site: Site, z: Tensor) -> Tensor:
        check_extent(site)
        return z

    evaluate(model, tensors(model), tensor(batch(model, shape, 2)), observe)
