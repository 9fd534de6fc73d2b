"""Stores of kernels of modules: begun, resumed, appended to, verified, with the module handed in again."""

from __future__ import annotations

import copy
import operator
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import strangers
import udlbridge as ub
from faults.readers import GRAPH
from helpers import assert_within_budget
from modules import build
from udlbridge import errors
from udlbridge.store import filling, samples
from udlbridge.store.tile_writer import TileWriter

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 samples, so that few samples have several."""
    from udlbridge.kernels import planning

    monkeypatch.setattr(planning, "LARGEST_TILE", 4)
    monkeypatch.setattr(planning, "SHORTEST_BLOCK", 4)


@pytest.mark.costly("resnet")
@pytest.mark.parametrize("name", ["resnet", "tied", "lstm", "functional"])
def test_a_store_of_a_module_holds_its_kernel_and_grows(name: str, tmp_path: Path) -> None:
    module, x = build(name, 10)
    store = ub.compute_kernel(module, x[:7], tmp_path / "K.zarr")
    assert_within_budget(np.asarray(store), ub.ntk(module, x[:7], method="plain"))
    assert store.verify().ok
    again = ub.KernelStore(store.path, model=module, x=x[:7])
    again.append(x[7:])
    assert_within_budget(np.asarray(again), ub.ntk(module, x, method="plain"))
    np.testing.assert_array_equal(again.samples(), x)
    assert again.rank_bound == ub.as_network(module).n_params * store.reduction.n_outputs
    assert again.compare_with_float64(3) < 1e-12


def test_what_was_interrupted_goes_on_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = build("tied", 10)
    whole = ub.compute_kernel(module, x, tmp_path / "whole.zarr")

    class Interrupted(TileWriter):
        def put(self, tile: Any, block: np.ndarray) -> None:
            if tile.row == 2:
                raise KeyboardInterrupt
            super().put(tile, block)

    with monkeypatch.context() as patch:
        patch.setattr(filling, "TileWriter", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            ub.compute_kernel(module, x, tmp_path / "K.zarr")
    assert ub.KernelStore(tmp_path / "K.zarr").verify().missing
    with pytest.raises(errors.StoreError, match="other network"):
        ub.compute_kernel(other_weights(module), x, tmp_path / "K.zarr", resume=True)
    found = ub.compute_kernel(copy.deepcopy(module), x, tmp_path / "K.zarr", resume=True)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(whole))
    assert found.manifest["model"] == whole.manifest["model"]


def other_weights(module: nn.Module) -> nn.Module:
    other = copy.deepcopy(module)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-9
    return other


def test_the_module_has_to_be_the_one_of_the_kernel(tmp_path: Path) -> None:
    module, x = build("reused", 6)
    store = ub.compute_kernel(module, x, tmp_path / "K.zarr", params="again.weight")
    assert store.parameters == ("first.weight",)
    alone = ub.KernelStore(store.path)
    assert alone.verify().ok
    assert alone.rank_bound == 9 * 2
    for work in (alone.model, alone.repair, lambda: alone.append(x), lambda: alone.compare_with_float64(1)):
        with pytest.raises(errors.StoreError, match=r"module \(Reused\), which it does not hold.*model=module"):
            work()
    for other in (other_weights(module), ub.Model([ub.Dense(3, 2)], dtype="float64")):
        with pytest.raises(errors.StoreError, match="other network"):
            ub.KernelStore(store.path, model=other)
    with pytest.raises(errors.StoreError, match="other samples"):
        ub.KernelStore(store.path, model=module, x=x[::-1])
    with torch.no_grad():
        module.read.weight += 1.0
    assert store.verify().inputs != ()
    with pytest.raises(errors.StoreError, match="other network"):
        store.append(x)


def test_a_damaged_tile_is_computed_again(tmp_path: Path) -> None:
    module, x = build("tied", 10)
    store = ub.compute_kernel(module, x, tmp_path / "K.zarr")
    before = np.asarray(store)
    file = store.path / "kernel" / "c" / "1" / "0"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert ub.KernelStore(store.path).verify().damaged == ((1, 0),)
    assert ub.KernelStore(store.path, model=module).repair() == 1
    np.testing.assert_array_equal(np.asarray(store), before)


def test_settings_and_the_choice_of_an_output_are_part_of_what_a_kernel_is_of() -> None:
    def hashed(slope: float, output: Any = None) -> str:
        torch.manual_seed(0)
        return ub.as_network(nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(slope)), output=output).hash()

    assert hashed(0.1) == hashed(0.1)
    assert len({hashed(0.1), hashed(0.2), hashed(0.1, "logits"), hashed(0.1, 0)}) == 4
    module = strangers.tagger()
    before = ub.as_network(module).hash()
    module(torch.zeros(1, 3, dtype=torch.int64))  # it keeps its last state
    assert ub.as_network(module).hash() == before


CHOICES: dict[str, Any] = {
    "one key": lambda y: y["logits"],
    "another key": lambda y: y["hidden"],
    "a part": lambda y: y["logits"][:, -1],
    "a closure": (lambda place: lambda y: y[place])(0),
    "another closure": (lambda place: lambda y: y[place])(1),
    "an array": (lambda weights: lambda y: y @ weights)(torch.ones(2)),
    "another array": (lambda weights: lambda y: y @ weights)(torch.zeros(2)),
    "a default": lambda y, place=0: y[place],
    "another default": lambda y, place=1: y[place],
    "a global": lambda y: y[FIRST],
    "a function": lambda y: chosen(y),
    "a library's function": lambda y: torch.tanh(y),
    "partial": partial(getattr, name="logits"),
    "another partial": partial(getattr, name="hidden"),
    "getter": operator.itemgetter("logits"),
    "another getter": operator.itemgetter("hidden"),
    "a method": torch.ones(2).add,
    "another's method": torch.zeros(2).add,
    "itself": lambda y: y if len(y) < 2 else CHOICES["itself"](y[0]),
}
FIRST = 0


def chosen(y: Any) -> Any:
    return y[FIRST]


def test_functions_that_choose_an_output_are_told_apart_by_what_they_do() -> None:
    module = chain_of_two()
    hashes = {name: ub.as_network(module, output=choice).hash() for name, choice in CHOICES.items()}
    assert len(set(hashes.values())) == len(CHOICES)
    again = ub.as_network(module, output=lambda y: y["logits"]).hash()
    assert again == hashes["one key"]


def test_sets_are_told_apart_by_what_they_hold() -> None:
    from udlbridge.backends.pytorch.choices import choice_text

    assert choice_text({0, 8}) == choice_text({8, 0})  # which come in another order
    assert choice_text({0, 8}) != choice_text({0, 9})


def chain_of_two() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_a_global_value_that_changes_makes_another_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: ub.as_network(chain_of_two(), output=CHOICES[name]).hash() for name in ("a global", "a function")}
    monkeypatch.setitem(globals(), "FIRST", 1)
    for name, value in before.items():
        assert ub.as_network(chain_of_two(), output=CHOICES[name]).hash() != value


def test_a_function_of_what_nothing_tells_from_others_is_refused_by_a_store(tmp_path: Path) -> None:
    lock, x = threading.Lock(), np.ones((2, 3), np.float32)

    def guarded(y: Any) -> Any:
        with lock:
            return y

    assert ub.ntk(chain_of_two(), x, output=guarded).shape == (2, 2)
    with pytest.raises(errors.ConversionError, match="computes with a lock"):
        ub.compute_kernel(chain_of_two(), x, tmp_path / "K.zarr", output=guarded)


def test_a_store_does_not_take_another_function_for_its_own(tmp_path: Path) -> None:
    module, x = strangers.language_model(), strangers.inputs("language_model", 4)
    store = ub.compute_kernel(module, x, tmp_path / "K.zarr", output=lambda y: y.logits[:, 0], outputs=1)
    assert ub.KernelStore(store.path, model=module, output=lambda y: y.logits[:, 0]).verify().ok
    with pytest.raises(errors.StoreError, match="other network"):
        ub.KernelStore(store.path, model=module, output=lambda y: y.logits[:, 1])


@pytest.mark.slow
def test_several_inputs_by_name(tmp_path: Path) -> None:
    module, x = strangers.language_model(), strangers.inputs("language_model", 7)
    store = ub.compute_kernel(module, first(x, 5), tmp_path / "K.zarr", output="logits", outputs=3)
    again = ub.KernelStore(store.path, model=module, output="logits", x=first(x, 5))
    again.append({name: value[5:] for name, value in x.items()})
    assert_within_budget(np.asarray(again), ub.ntk(module, x, output="logits", outputs=3))
    assert again.samples().dtype.names == ("input_ids", "attention_mask")
    np.testing.assert_array_equal(again.samples()["attention_mask"], x["attention_mask"])
    with pytest.raises(errors.StoreError, match="other samples"):
        ub.KernelStore(store.path, model=module, output="logits", x=first(x, 5))
    with pytest.raises(errors.StoreError, match="other network"):
        ub.KernelStore(store.path, model=module, output=lambda y: y["logits"])
    swapped = {"attention_mask": x["input_ids"], "input_ids": x["attention_mask"]}
    assert samples.data_hash(network_batch(swapped)) != samples.data_hash(network_batch(x))


def first(x: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    return {name: value[:n] for name, value in x.items()}


def network_batch(x: Any) -> np.ndarray:
    from udlbridge.backends.pytorch.module_inputs import Dtypes, packed

    return packed(x, "x", Dtypes(frozenset({torch.float32})))


@pytest.mark.parametrize(
    "x",
    [
        np.ones((3, 2, 2), np.float32),
        np.arange(6).reshape(3, 2) > 2,
        np.arange(6, dtype=np.float16).reshape(3, 2),
        np.array([(1, [2.0, 3.0]), (4, [5.0, 6.0])], dtype=[("a", "i8"), ("b", "f4", (2,))]),
    ],
)
def test_samples_lie_in_a_store_and_come_back(x: np.ndarray) -> None:
    stored, fields = samples.as_stored(x), samples.sample_fields(x)
    assert stored.dtype.name in samples.DTYPES
    found = samples.as_given(stored, fields)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)
    assert samples.data_hash(x) == samples.data_hash(memoryview_like(stored), fields=fields)
    assert fields is None or stored.shape[1:] == (samples.bytes_of(fields),)


class memoryview_like:  # noqa: N801 - an array that is not NumPy's, as Zarr's
    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.array[key]


def test_half_precision(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).to(torch.bfloat16)
    x = torch.randn(5, 3).to(torch.bfloat16)
    store = ub.compute_kernel(module, x, tmp_path / "K.zarr", device=torch.device("cpu"))
    assert store.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(store), ub.ntk(module, x))


def test_a_store_holds_its_graph(tmp_path: Path) -> None:
    """Like that of a `Model`: it is verified, repaired, resumed and appended to with nothing handed in."""
    x = GRAPH.random_batch((2,), 10)
    path = ub.compute_kernel(GRAPH, x[:7], tmp_path / "K.zarr", backend="reference").path
    store = ub.KernelStore(path)
    assert store.model() == GRAPH
    assert store.verify().ok
    assert store.rank_bound == ub.as_network(GRAPH).n_params * store.reduction.n_outputs
    store.append(x[7:])
    (path / "kernel" / "c" / "1" / "0").unlink()
    assert ub.KernelStore(path).repair() == 1
    assert_within_budget(np.asarray(ub.KernelStore(path)), ub.ntk(GRAPH, x, backend="torch"))
    assert ub.compute_kernel(GRAPH, x, path, resume=True).complete
    assert ub.KernelStore(path).compare_with_float64(2) < 1e-12
    network = path / "model.safetensors"
    content = bytearray(network.read_bytes())
    content[-3] ^= 1
    network.write_bytes(content)
    assert "network" in ub.KernelStore(path).verify().inputs[0]
    ub.compute_kernel(GRAPH, x, path, resume=True)
    assert ub.KernelStore(path).verify().ok
