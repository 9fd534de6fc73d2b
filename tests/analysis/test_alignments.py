"""Centred alignment: the formulas against their definitions, properties, streaming, and what has no alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import udlbridge as ub
from udlbridge.analysis import features, sums
from udlbridge.errors import DTypeError, InputError, NumericalError, OptionError, ShapeError
from udlbridge.kernels import planning
from udlbridge.kernels.tiling import Tile


@st.composite
def kernel_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two kernels of random features, of random size and rank, with a random common offset."""
    n, d = draw(st.integers(2, 24)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    offset = draw(st.sampled_from([0.0, 1.0, 30.0]))
    features = [rng.standard_normal((n, d)) + offset for _ in range(2)]
    return features[0] @ features[0].T, features[1] @ features[1].T


def centring_matrix(n: int) -> np.ndarray:
    return np.eye(n) - np.ones((n, n)) / n


def dense_alignment(k1: np.ndarray, k2: np.ndarray) -> float:
    """The definition, with the centring matrix, in float64."""
    h = centring_matrix(len(k1))
    a, b = h @ k1.astype(np.float64) @ h, h @ k2.astype(np.float64) @ h
    return float(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def slack(*kernels: np.ndarray) -> float:
    """What rounding may do to an alignment: sums over the whole kernel, divided by what centring leaves of it."""
    left = [np.linalg.norm(k) / np.linalg.norm(ub.centre(k)) for k in kernels]
    return 1e-14 * max(left) ** 2


@given(hnp.arrays(np.float64, st.integers(1, 12).map(lambda n: (n, n)), elements=st.floats(-1e3, 1e3)))
def test_centred_kernels_have_zero_row_and_column_sums(k: np.ndarray) -> None:
    centred = ub.centre(k)
    scale = max(np.abs(k).max(), 1.0) * len(k)
    np.testing.assert_allclose(centred.sum(axis=0), 0, atol=1e-13 * scale)
    np.testing.assert_allclose(centred.sum(axis=1), 0, atol=1e-13 * scale)
    h = centring_matrix(len(k))
    np.testing.assert_allclose(centred, h @ k @ h, rtol=0, atol=1e-13 * scale)


@given(kernel_pairs())
def test_alignment_is_the_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert ub.alignment(*pair) == pytest.approx(dense_alignment(*pair), abs=slack(*pair))
    k1, k2 = pair
    plain = np.sum(k1 * k2) / (np.linalg.norm(k1) * np.linalg.norm(k2))
    assert ub.alignment(k1, k2, centred=False) == pytest.approx(plain, abs=1e-12)


@given(kernel_pairs(), st.floats(1e-3, 1e3), st.booleans())
def test_alignment_is_symmetric_bounded_reflexive_and_blind_to_scale(
    pair: tuple[np.ndarray, np.ndarray], scale: float, centred: bool
) -> None:
    k1, k2 = pair
    value, near = ub.alignment(k1, k2, centred=centred), slack(k1, k2)
    assert 0 - near <= value <= 1
    assert ub.alignment(k2, k1, centred=centred) == pytest.approx(value, abs=near)
    assert ub.alignment(k1, k1, centred=centred) == pytest.approx(1, abs=1e-15)
    assert ub.alignment(scale * k1, k1, centred=centred) == pytest.approx(1, abs=near)
    assert ub.alignment(scale * k1, k2, centred=centred) == pytest.approx(value, abs=near)
    assert ub.alignment(-k1, k2, centred=centred) == pytest.approx(-value, abs=near)


@given(kernel_pairs(), st.integers(1, 30))
def test_streaming_equals_dense_for_every_tile(pair: tuple[np.ndarray, np.ndarray], tile: int) -> None:
    assert ub.alignment(*pair, tile=tile) == pytest.approx(dense_alignment(*pair), abs=slack(*pair))


@given(st.integers(0, 2**20), st.integers(2, 15), st.integers(1, 16))
def test_kernels_that_are_not_symmetric_are_centred_on_both_sides(seed: int, n: int, tile: int) -> None:
    k1, k2 = np.random.default_rng(seed).standard_normal((2, n, n))
    assert ub.alignment(k1, k2, tile=tile) == pytest.approx(dense_alignment(k1, k2), abs=slack(k1, k2))


@given(st.integers(0, 2**20))
def test_alignment_of_feature_kernels_is_linear_cka(seed: int) -> None:
    """|Y'X|^2 / (|X'X| |Y'Y|) for centred features: Kornblith et al. (2019), equation 4."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((20, 5)) + 3, rng.standard_normal((20, 4))
    xc, yc = x - x.mean(0), y - y.mean(0)
    cka = np.linalg.norm(yc.T @ xc) ** 2 / (np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc))
    assert ub.alignment(x @ x.T, y @ y.T) == pytest.approx(cka, abs=1e-11)


def test_a_large_common_offset_costs_no_digits() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 40, 3))
    k1, k2 = a @ a.T, b @ b.T
    assert ub.alignment(k1 + 1e6, k2 - 1e5) == pytest.approx(dense_alignment(k1, k2), abs=1e-8)


@given(
    kernel_pairs(), st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(1, 30) | st.none(), st.booleans()
)
def test_entries_of_any_size_cost_no_digits(
    pair: tuple[np.ndarray, np.ndarray], one: int, other: int, tile: int | None, centred: bool
) -> None:
    expected = ub.alignment(*pair, centred=centred)
    scaled = [np.ldexp(k, exponent) for k, exponent in zip(pair, (one, other), strict=True)]
    assert ub.alignment(*scaled, tile=tile, centred=centred) == pytest.approx(expected, abs=slack(*pair))
    for k, exponent, original in zip(scaled, (one, other), pair, strict=True):
        np.testing.assert_array_equal(ub.centre(k), np.ldexp(ub.centre(original), exponent))


@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize("power", [155, -155, -160, -165, -300])
@pytest.mark.parametrize("order", [1, -1])
def test_entries_whose_size_changes_from_one_block_to_the_next(
    power: int, tile: int | None, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "STRIP", 100)
    a, b = np.random.default_rng(1).standard_normal((2, 20, 3))
    sizes = np.repeat([1.0, 10.0**power], 10)[::order, None]
    k = (a @ a.T) * sizes * sizes.T if power == -155 else (a @ a.T) * np.maximum(sizes, sizes.T)
    # Divided by a power of two, the definition can be computed without overflow; what is lost then is nothing.
    small = np.ldexp(k, -np.frexp(np.abs(k).max())[1])
    assert ub.alignment(k, b @ b.T, tile=tile) == pytest.approx(dense_alignment(small, b @ b.T), abs=1e-13)
    assert ub.alignment(k, k, tile=tile) == pytest.approx(1, abs=1e-15)


def test_a_large_term_of_rows_and_columns_costs_the_digits_that_the_docstring_says() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 60, 3))
    k, other, term = a @ a.T, b @ b.T, 1e7 * rng.standard_normal((60, 1))
    blurred, expected = k + term + term.T, dense_alignment(k, other)
    lost = np.linalg.norm(blurred) / np.linalg.norm(ub.centre(k))
    assert ub.alignment(blurred, other) == pytest.approx(expected, abs=1e-15 * lost**2)
    assert ub.alignment(ub.centre(blurred), ub.centre(other)) == pytest.approx(expected, abs=1e-16 * lost)


def test_float32_kernels_are_summed_in_float64() -> None:
    rng = np.random.default_rng(2)
    f = (rng.standard_normal((2, 300, 8)) + 5).astype(np.float32)
    k1, k2 = f[0] @ f[0].T, f[1] @ f[1].T
    assert k1.dtype == np.float32
    assert ub.alignment(k1, k2, tile=64) == pytest.approx(dense_alignment(k1, k2), abs=1e-10)


class OnlySlices:
    """What a store on disk offers, and a record of what was read."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape = array.shape
        self.read = np.zeros(array.shape, dtype=int)
        self.blocks: set[tuple[int, int]] = set()
        self._array = array

    def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
        self.read[block] += 1
        self.blocks.add((block[0].start, block[1].start))
        return self._array[block]


def test_every_entry_is_read_once() -> None:
    rng = np.random.default_rng(3)
    f = rng.standard_normal((2, 37, 5))
    stores = [OnlySlices(f[0] @ f[0].T), OnlySlices(f[1] @ f[1].T)]
    value = ub.alignment(*stores, tile=10)
    assert value == pytest.approx(dense_alignment(f[0] @ f[0].T, f[1] @ f[1].T), abs=1e-12)
    for store in stores:
        np.testing.assert_array_equal(store.read, 1)


def test_memory_maps_and_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        f = rng.standard_normal((500, 6)).astype(np.float32)
        np.save(path, f @ f.T)
    maps = [np.load(path, mmap_mode="r") for path in paths]
    values = []
    for cores in (1, 3):
        monkeypatch.setattr(sums.os, "cpu_count", lambda cores=cores: cores)
        values.append(ub.alignment(*maps, tile=128))
    assert values[0] == pytest.approx(values[1], abs=1e-15)
    assert values[0] == pytest.approx(dense_alignment(*(np.asarray(m) for m in maps)), abs=1e-11)


def test_kernel_stores_are_aligned(tmp_path: Path) -> None:
    x = np.random.default_rng(6).standard_normal((30, 4))
    models = [ub.Model([ub.Dense(4, 7, "tanh"), ub.Dense(7, 2)], seed=seed, dtype="float64") for seed in (1, 2)]
    stores = [
        ub.compute_kernel(model, x, tmp_path / f"{index}.zarr", backend="reference")
        for index, model in enumerate(models)
    ]
    kernels = [ub.ntk(model, x, backend="reference") for model in models]
    assert ub.alignment(*stores) == pytest.approx(dense_alignment(*kernels), abs=1e-12)
    assert ub.alignment(stores[0], kernels[1], tile=11) == pytest.approx(dense_alignment(*kernels), abs=1e-12)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ub.KernelStore]:
    """Three kernels of 30 samples in tiles of 8; the last in float16."""
    monkeypatch.setattr(planning, "LARGEST_TILE", 8)
    x = np.random.default_rng(3).standard_normal((30, 4)).astype(np.float32)
    return [
        ub.compute_kernel(
            ub.Model([ub.Dense(4, 5, "tanh"), ub.Dense(5, 2)], seed=seed), x, tmp_path / f"{seed}.zarr",
            backend="reference", storage=storage,
        )
        for seed, storage in enumerate([None, None, "float16"])
    ]  # fmt: skip


def test_stores_are_read_by_their_triangle_once(stores: list[ub.KernelStore], monkeypatch: pytest.MonkeyPatch) -> None:
    dense = [np.asarray(store) for store in stores]
    read: list[tuple[Path, int, int]] = []
    read_tile = ub.KernelStore.read_tile

    def noted(self: ub.KernelStore, tile: Tile) -> np.ndarray:
        read.append((self.path, tile.row, tile.column))
        return read_tile(self, tile)

    monkeypatch.setattr(ub.KernelStore, "read_tile", noted)
    found = ub.alignment(stores[0], stores[1])
    assert sorted(read) == sorted((s.path, i, j) for s in stores[:2] for i in range(4) for j in range(i + 1))
    assert found == pytest.approx(dense_alignment(dense[0], dense[1]), abs=1e-12)
    for centred in (True, False):
        matrix = ub.alignment_matrix(dict(zip("abc", stores, strict=True)), centred=centred)
        expected = ub.alignment_matrix(dict(zip("abc", dense, strict=True)), centred=centred)
        np.testing.assert_allclose(matrix, expected, rtol=1e-12)


def test_a_store_and_an_array(stores: list[ub.KernelStore]) -> None:
    dense = np.asarray(stores[0])
    assert ub.alignment(stores[0], dense) == pytest.approx(1, abs=1e-12)
    assert ub.alignment(stores[0], dense, tile=5) == pytest.approx(1, abs=1e-12)


def test_the_matrix_holds_all_pairs() -> None:
    rng = np.random.default_rng(5)
    kernels = {name: f @ f.T for name, f in zip("abc", rng.standard_normal((3, 12, 4)), strict=True)}
    matrix = ub.alignment_matrix(kernels, tile=5)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    np.testing.assert_array_equal(matrix, matrix.T)
    for i, first in enumerate(kernels.values()):
        for j, second in enumerate(kernels.values()):
            assert matrix[i, j] == pytest.approx(dense_alignment(first, second), abs=1e-12)


def test_lazy_kernels_are_never_formed(stores: list[ub.KernelStore], monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.where(np.arange(30) % 3, 1.0, -1.0)
    lazy, dense = ub.label_kernel(labels), np.outer(labels, labels)
    expected = ub.alignment(stores[0], dense)
    largest: list[int] = []
    block, read_tile = ub.FactoredKernel.__getitem__, ub.KernelStore.read_tile
    tiles: list[tuple[int, int]] = []

    def noted_block(self: ub.FactoredKernel, key: tuple[slice, slice]) -> np.ndarray:
        found = block(self, key)
        largest.append(found.size)
        return found

    def noted_tile(self: ub.KernelStore, tile: Tile) -> np.ndarray:
        tiles.append((tile.row, tile.column))
        return read_tile(self, tile)

    monkeypatch.setattr(ub.FactoredKernel, "__getitem__", noted_block)
    monkeypatch.setattr(ub.KernelStore, "read_tile", noted_tile)
    assert ub.alignment(stores[0], lazy) == pytest.approx(expected, abs=1e-13)
    # The store's triangle is read once, and the other kernel goes with its tiles of 8.
    assert sorted(tiles) == [(i, j) for i in range(4) for j in range(i + 1)]
    assert max(largest) == 64
    assert ub.alignment(lazy, dense, tile=5) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("centred", [True, False])
def test_layers_are_aligned_in_one_forward_pass_and_one_pass_over_the_target(
    centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ub.Model(
        [
            *(ub.Conv2d(1, 2, 3, "relu"), ub.BatchNorm(2), ub.MaxPool(2), ub.Flatten()),
            *(ub.Dense(18, 5, "tanh"), ub.Residual([ub.Dense(5, 5, "relu")]), ub.Dense(5, 2)),
        ],
        seed=1,
        dtype="float64",
    )
    x = np.random.default_rng(0).standard_normal((9, 1, 8, 8)) + 1
    dense = ub.label_kernel(np.array([1, -1, 1, -1, 1, -1, -1, 1, 1])) + 2.0
    expected = [
        ub.alignment(ub.feature_kernel(model, x, layer=layer, backend="reference"), dense, centred=centred)
        for layer in range(7)
    ]
    engine = ub.backends.get("reference")
    outputs, passed = engine.outputs, []

    def noted(part: ub.Model, batch: np.ndarray) -> np.ndarray:
        passed.append((len(part.layers), len(batch)))
        return outputs(part, batch)

    monkeypatch.setattr(engine, "outputs", noted)
    monkeypatch.setattr(features, "CHUNK", 4)
    target = OnlySlices(dense)
    found = ub.layer_alignments(model, x, target, centred=centred, backend="reference")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(target.read, 1)
    assert passed == [(1, size) for size in (4, 4, 1) for _ in range(7)]


def test_a_layer_without_an_alignment_is_named() -> None:
    model = ub.Model([ub.Dense(3, 2), ub.Dense(2, 2)], dtype="float64")
    dead = model.with_params({**model.params, "1.weight": np.zeros((2, 2))})
    x = np.random.default_rng(0).standard_normal((6, 3))
    with pytest.raises(NumericalError, match="layer 1 dense has no norm"):
        ub.layer_alignments(dead, x, ub.label_kernel(np.array([1, -1, 1, -1, 1, 1])), backend="reference")
    with pytest.raises(NumericalError, match="the target has no norm"):
        ub.layer_alignments(model, x, np.ones((6, 6)), backend="reference")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [1.0, 0.1, 1e6, 1e-30])
def test_equal_labels_have_no_alignment(value: float, dtype: str) -> None:
    constant = np.full((30, 30), value, dtype=dtype)
    other = np.diag(np.arange(1.0, 31))
    for pair in ((constant, other), (other, constant)):
        with pytest.raises(NumericalError, match="no norm once it is centred") as caught:
            ub.alignment(*pair, tile=7)
        assert "all labels" in str(caught.value)
    assert ub.alignment(constant, other, centred=False) > 0


@pytest.mark.parametrize("offset", [0.3, 1e4])
def test_features_that_are_all_equal_up_to_rounding_have_no_alignment(offset: float) -> None:
    phi = np.full((50, 7), offset, dtype=np.float32) * np.linspace(1, 2, 7, dtype=np.float32)
    with pytest.raises(NumericalError):
        ub.alignment(phi @ phi.T, np.diag(np.ones(50)))


def test_kernels_that_cannot_be_compared() -> None:
    k = np.eye(4)
    with pytest.raises(ShapeError, match=r"\(4, 3\)"):
        ub.alignment(k, np.ones((4, 3)))
    with pytest.raises(ShapeError, match="different size"):
        ub.alignment(k, np.eye(5))
    with pytest.raises(ShapeError, match=r"\(4, 4, 2\)"):
        ub.centre(np.ones((4, 4, 2)))
    with pytest.raises(ShapeError):
        ub.alignment_matrix([])
    with pytest.raises(DTypeError):
        ub.alignment(k, k.astype(complex))
    with pytest.raises(OptionError, match="tile=0"):
        ub.alignment(k, k, tile=0)
    for bad in (np.nan, np.inf):
        broken = k.copy()
        broken[3, 1] = bad
        with pytest.raises(NumericalError, match=rf"kernel 0 is not finite: it is {bad} at \(3, 1\)"):
            ub.alignment(broken, k)
        with pytest.raises(NumericalError, match=rf"the kernel is not finite: it is {bad} at \(3, 1\)"):
            ub.centre(broken)
        lazy = ub.FactoredKernel(np.array([[1.0], [bad], [2.0], [3.0]]))
        with pytest.raises(NumericalError, match=rf"kernel 1 is not finite: it is {bad} at \(0, 1\)"):
            ub.alignment(k, lazy)
    with pytest.raises(NumericalError, match="has no norm, so"):
        ub.alignment(np.zeros((4, 4)), k, centred=False)


def test_no_kernels_at_all(untyped: None) -> None:
    k = np.eye(3)
    with pytest.raises(DTypeError, match="complex128") as caught:
        ub.centre(k * 1j)
    assert "real part" in caught.value.remedy
    for bad in (k.astype(str), k.astype(object)):
        for call in (ub.centre, lambda bad: ub.alignment(bad, k)):
            with pytest.raises(DTypeError, match=r"kernel.* of dtype"):
                call(bad)
    for value in (np.nan, np.inf):
        with pytest.raises(NumericalError, match="not finite"):
            ub.centre(np.diag([1.0, value, 1.0]))
    for call in (ub.centre, lambda bad: ub.alignment(bad, bad), lambda bad: ub.alignment_matrix([k, bad])):
        with pytest.raises(InputError, match="set"):
            call({1, 2})
    for tile in (2.5, "2", True, -1):
        with pytest.raises(OptionError, match="tile="):
            ub.alignment(k, k, tile=tile)
    for layer in ("0", 0.0, None, True):
        with pytest.raises(OptionError, match=f"layer={layer!r} of a model with 1 layer"):
            ub.features(ub.Model([ub.Dense(3, 2)]), k.astype(np.float32), layer=layer)
