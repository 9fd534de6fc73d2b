"""NNGP and NTK of infinite networks, against neural-tangents, quadrature in two dimensions, and finite networks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import udlbridge as ub
from helpers import GOLDENS
from udlbridge import infinite
from udlbridge.backends.reference.activations import ACTIVATIONS
from udlbridge.errors import InputError, LayerError, NumericalError, OptionError, ShapeError, UDLBridgeError
from udlbridge.infinite.duals import DUALS
from udlbridge.networks import layers

RECORDED = GOLDENS / "neural_tangents"
LINEAR_PIECES = ("relu", "leakyrelu", "abs")


def chain(spec: dict[str, Any]) -> list[ub.networks.layers.Layer]:
    """The layers of a recorded Dense network; widths play no part."""
    if spec["kind"] == "residual mlp":
        block = [ub.Activation("relu"), ub.Dense(3, 3, "relu"), ub.Dense(3, 3)]
        return [
            ub.Dense(6, 3),
            *(ub.Residual(block) for _ in range(spec["blocks"])),
            ub.Activation("relu"),
            ub.Dense(3, 1),
        ]
    hidden = [ub.Dense(6 if i == 0 else 3, 3, spec["activation"]) for i in range(spec["hidden_layers"])]
    return [*hidden, ub.Dense(3, 1)]


def assert_recorded(found: ub.infinite.Kernels, z: Any, suffix: str, limit: float = 1e-10) -> None:
    """Both kernels as they were recorded.

    Where an activation has a kink, that library takes the angle of a sample with itself from sqrt(1 - cos^2), which
    rounds to 1e-8: the diagonal of its NTK is off by as much. There the closed form of the angle 0 decides, below.
    """
    np.testing.assert_allclose(found.nngp, z[f"nngp{suffix}"], rtol=limit, atol=limit)
    apart = ~np.eye(*found.ntk.shape, dtype=bool) if suffix == "" else np.ones(found.ntk.shape, dtype=bool)
    np.testing.assert_allclose(found.ntk[apart], z[f"ntk{suffix}"][apart], rtol=limit, atol=limit)
    np.testing.assert_allclose(found.ntk, z[f"ntk{suffix}"], rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("infinite_[mr]*.npz")), ids=lambda path: path.stem)
def test_dense_networks_as_neural_tangents_has_them(path: Any) -> None:
    with np.load(path) as z:
        spec = json.loads(str(z["spec"]))
        stds = {"w_std": spec["W_std"], "b_std": spec["b_std"]}
        assert_recorded(ub.infinite.kernels(chain(spec), z["x1"], z["x2"], **stds), z, "_cross")
        if "ntk" in z:
            assert_recorded(ub.infinite.kernels(chain(spec), z["x1"], **stds), z, "")


def convolutional(spec: dict[str, Any]) -> list[ub.networks.layers.Layer]:
    """The layers of a recorded convolutional network on samples (2, 6, 6), padded as JAX pads."""
    net: list[ub.networks.layers.Layer] = []
    channels, length = 2, 6
    for c in spec["convolutions"]:
        kernel, stride = c["kernel"][0], c["stride"][0]
        side = layers.same_padding(length, kernel, stride) if spec["padding"] == "SAME" else (0, 0)
        net.append(ub.Conv2d(channels, 3, kernel, spec["activation"], stride=stride, padding=(side, side)))
        channels, length = 3, net[-1].output_shape((channels, length, length))[1]
    pool = [ub.GlobalMeanPool()] if spec["pool"] == "mean" else []
    return [*net, *pool, ub.Flatten(), ub.Dense(3 if pool else 3 * length**2, 1)]


@pytest.mark.parametrize("path", sorted(RECORDED.glob("infinite_conv*.npz")), ids=lambda path: path.stem)
def test_convolutional_networks_as_neural_tangents_has_them(path: Any) -> None:
    with np.load(path) as z:
        spec = json.loads(str(z["spec"]))
        stds = {"w_std": spec["W_std"], "b_std": spec["b_std"]}
        x1, x2 = (np.moveaxis(z[name], -1, 1) for name in ("x1", "x2"))
        assert_recorded(ub.infinite.kernels(convolutional(spec), x1, x2, **stds), z, "_cross")
        assert_recorded(ub.infinite.kernels(convolutional(spec), x1, **stds), z, "")


@pytest.mark.parametrize("activation", LINEAR_PIECES)
def test_a_sample_with_itself_has_the_angle_zero(activation: str) -> None:
    """For them E[f(u)^2] = c var u and E[f'(u)^2] = c: the diagonal follows by hand, to the last digits."""
    c = {"relu": 0.5, "leakyrelu": (1 + 0.01**2) / 2, "abs": 1.0}[activation]
    x = np.random.default_rng(0).standard_normal((4, 3))
    found = ub.infinite.kernels(
        [ub.Dense(3, 2, activation), ub.Dense(2, 2, activation), ub.Dense(2, 1)], x, w_std=1.3, b_std=0.2
    )
    k = ntk = 1.3**2 * (x**2).sum(axis=1) / 3 + 0.2**2
    for _ in range(2):
        ntk = 1.3**2 * c * k + 0.2**2 + 1.3**2 * c * ntk
        k = 1.3**2 * c * k + 0.2**2
    np.testing.assert_allclose(np.diagonal(found.nngp), k, rtol=1e-14)
    np.testing.assert_allclose(np.diagonal(found.ntk), ntk, rtol=1e-14)


def by_quadrature(f: Callable[[np.ndarray], np.ndarray], d1: float, d2: float, k: float) -> float:
    """E[f(u) f(v)] in polar coordinates, Gauss-Legendre between the angles where u or v is zero."""
    root = np.linalg.cholesky(np.array([[d1, k], [k, d2]]))
    kinks = [np.pi / 2, 3 * np.pi / 2] + [(np.arctan2(-root[1, 0], root[1, 1]) + s) % (2 * np.pi) for s in (0, np.pi)]
    edges = sorted({0.0, 2 * np.pi, *kinks})
    nodes, weights = np.polynomial.legendre.leggauss(80)
    radius, share = 6 * (nodes + 1), 6 * weights
    total = 0.0
    for a, b in itertools.pairwise(edges):
        angle = (b - a) / 2 * (nodes + 1) + a
        z1, z2 = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
        density = np.outer(share * radius * np.exp(-(radius**2) / 2), (b - a) / 2 * weights) / (2 * np.pi)
        total += float((f(root[0, 0] * z1) * f(root[1, 0] * z1 + root[1, 1] * z2) * density).sum())
    return total


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
@settings(max_examples=8)
@given(d1=st.floats(0.05, 4.0), d2=st.floats(0.05, 4.0), rho=st.floats(-0.98, 0.98))
def test_every_activation_has_the_dual_that_quadrature_gives(name: str, d1: float, d2: float, rho: float) -> None:
    k = rho * np.sqrt(d1 * d2)
    values, slopes = DUALS[name](np.array([d1]), np.array([d2]), np.array([k]))
    f, slope = ACTIVATIONS[name]
    np.testing.assert_allclose(values, by_quadrature(f, d1, d2, k), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(slopes, by_quadrature(slope, d1, d2, k), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_equal_and_opposite_and_vanishing_arguments(name: str) -> None:
    """u is v, u is -v, and u is zero: integrals over one variable, split at zero."""
    f, slope = ACTIVATIONS[name]
    z, w = np.polynomial.legendre.leggauss(200)
    z, w = np.concatenate([6 * (z - 1), 6 * (z + 1)]), np.concatenate([6 * w, 6 * w])
    w = w * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    d = np.array([1.7])
    for sign in (1.0, -1.0):
        values, slopes = DUALS[name](d, d, sign * d)
        u = np.sqrt(d) * z
        np.testing.assert_allclose(values, (f(u) * f(sign * u) * w).sum(), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(slopes, (slope(u) * slope(sign * u) * w).sum(), rtol=1e-7, atol=1e-8)
    values, _ = DUALS[name](np.zeros(1), d, np.zeros(1))
    np.testing.assert_allclose(values, f(np.zeros(1)) * (f(np.sqrt(d) * z) * w).sum(), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_blocks_change_nothing() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((7, 2, 4, 4))
    net = [
        ub.Conv2d(2, 3, 3, "tanh", padding=1),
        ub.MeanPool(2),
        ub.Conv2d(3, 3, 2, "relu"),
        ub.Flatten(),
        ub.Dense(3, 1),
    ]
    whole = ub.infinite.kernels(net, x, w_std=1.2, b_std=0.3, threads=1)
    # 12 arrays of 256 pairs of positions: blocks of two samples.
    small = ub.infinite.kernels(net, x, w_std=1.2, b_std=0.3, threads=2, memory=2 * 4 * 8 * 12 * 256)
    np.testing.assert_allclose(small.nngp, whole.nngp, rtol=1e-13)
    np.testing.assert_allclose(small.ntk, whole.ntk, rtol=1e-13)
    cross = ub.infinite.kernels(net, x[:3], x[2:], w_std=1.2, b_std=0.3, get="ntk")
    assert cross.nngp is None
    apart = np.ones((3, 5), dtype=bool)
    apart[2, 0] = False  # the same sample on both sides: its angle is known to 1e-8 there
    np.testing.assert_allclose(cross.ntk[apart], whole.ntk[:3, 2:][apart], rtol=1e-11)
    np.testing.assert_allclose(cross.ntk, whole.ntk[:3, 2:], rtol=1e-6)
    np.testing.assert_array_equal(whole.ntk, whole.ntk.T)
    assert np.linalg.eigvalsh(whole.ntk)[0] > 0


def test_the_standard_parameterization_by_hand() -> None:
    """One hidden layer of 50: kernels of the weights themselves, times the width that each layer sees."""
    x = np.random.default_rng(1).standard_normal((3, 4))
    found = ub.infinite.kernels(
        [ub.Dense(4, 50, "erf"), ub.Dense(50, 1)], x, w_std=1.5, b_std=0.5, parameterization="standard"
    )
    k0 = x @ x.T / 4
    k1 = 1.5**2 * k0 + 0.25
    values, slopes = DUALS["erf"](np.diagonal(k1)[:, None], np.diagonal(k1), k1)
    expected = 50 * values + 1 + 1.5**2 * slopes * (4 * k0 + 1)
    np.testing.assert_allclose(found.ntk, expected, rtol=1e-13)
    np.testing.assert_allclose(found.nngp, 1.5**2 * values + 0.25, rtol=1e-13)


RESIDUAL = ub.Residual([ub.Activation("relu"), ub.Dense(8, 8, "gelu_erf"), ub.Dense(8, 8)])
POOLED = [ub.Conv1d(8, 8, 2, "elu"), ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(8, 1)]
NETWORKS = {
    "dense": ([ub.Dense(5, 8, "relu"), ub.Dense(8, 8, "tanh"), ub.Dense(8, 1)], (5,)),
    "convolutions": (
        [ub.Conv2d(2, 8, 3, "relu", padding=1), ub.Conv2d(8, 8, 3, "erf", stride=2), ub.Flatten(), ub.Dense(32, 2)],
        (2, 5, 5),
    ),
    "pools": ([ub.Conv1d(2, 8, 3, "relu", padding=1), ub.MeanPool(2, dims=1), *POOLED], (2, 8)),
    "residual": (
        [ub.Dense(4, 8), RESIDUAL, ub.LayerNorm(8, affine=False), ub.Activation("sin"), ub.Dense(8, 1)],
        (4,),
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETWORKS)
def test_finite_networks_approach_the_infinite_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the bound is one that a kernel with a mistake of 5 % in its weights' variance does not keep."""
    net, shape = NETWORKS[name]
    x = np.random.default_rng(2).standard_normal((4, *shape))
    options = {"x": x, "b_std": 0.3, "engines": ["reference"]}
    found = ub.converges(net, (16, 64, 256), 8, w_std=1.2, **options)
    assert found.ntk["reference"][-1] < 4 / np.sqrt(256 * 8)
    assert found.nngp["reference"][-1] < 4 / np.sqrt(256 * 8)
    assert -1.3 < found.slope("reference") < -0.3
    assert "-0.5 in the limit" in str(found)

    from udlbridge.infinite import convergence

    right = convergence.kernels
    monkeypatch.setattr(convergence, "kernels", lambda *a, w_std, **k: right(*a, w_std=1.08 * w_std, **k))
    wrong = ub.converges(net, (256,), 8, w_std=1.2, **options)
    assert wrong.ntk["reference"][-1] > 4 / np.sqrt(256 * 8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2), ub.Softmax()], x, w_std=1, b_std=0), LayerError, "Softmax"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, w_std=-1, b_std=0), OptionError, "w_std"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, w_std=1, b_std=-1), OptionError, "b_std"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, w_std=np.nan, b_std=0), OptionError, "w_std"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], np.nan * x, w_std=1, b_std=0), InputError, "nan"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], "xyz", w_std=1, b_std=0), InputError, "number"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, np.inf * x, w_std=1, b_std=0), InputError, "inf"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, w_std=1, b_std=0, get="both"), OptionError, "get"),
        (lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, x[:, :2], w_std=1, b_std=0), ShapeError, "features|shape"),
        (
            lambda x: ub.infinite.kernels([ub.Dense(3, 2)], x, w_std=1, b_std=0, parameterization="mup"),
            OptionError,
            "standard",
        ),
        (
            lambda x: ub.infinite.kernels([ub.Residual([ub.Dense(3, 3, "relu")]), ub.Dense(3, 1)], x, w_std=1, b_std=0),
            LayerError,
            "ends in",
        ),
        (
            lambda x: ub.infinite.kernels([ub.LayerNorm(3), ub.Dense(3, 1)], x, w_std=1, b_std=0),
            LayerError,
            "affine=False",
        ),
        (
            lambda x: ub.infinite.kernels([ub.Dense(3, 2, "tanh"), ub.Dense(2, 1)], 1e4 * x, w_std=1, b_std=0),
            NumericalError,
            "variance",
        ),
        (lambda x: ub.converges([ub.Softmax()], x=x), LayerError, "does not end"),
        (lambda x: ub.converges([ub.Dense(3, 1)], (), x=x), OptionError, "widths"),
    ],
)
def test_what_cannot_be_is_refused(
    untyped: None, call: Callable[[np.ndarray], object], error: type[UDLBridgeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(np.random.default_rng(3).standard_normal((4, 3)))


SECOND_OPINIONS = {
    "two layers": [ub.Dense(4, 5, "relu"), ub.Dense(5, 3, "erf"), ub.Dense(3, 1)],
    "convolutions": [
        ub.Conv2d(2, 3, (3, 2), padding="same", activation="relu"), ub.MeanPool(2),
        ub.Conv2d(3, 2, 2, stride=2, activation="sin"), ub.GlobalMeanPool(), ub.Flatten(), ub.Dense(2, 1),
    ],
    "flattened": [ub.Conv1d(2, 3, 3, padding=1, activation="gelu_erf"), ub.Flatten(), ub.Dense(15, 1)],
    "residual": [
        ub.Dense(4, 6), ub.Residual([ub.Activation("tanh"), ub.Dense(6, 6)]),
        ub.Residual([ub.Dense(6, 3)], [ub.Dense(6, 3)]), ub.LayerNorm(3, affine=False), ub.Dense(3, 1),
    ],
}  # fmt: skip
SHAPES = {"convolutions": (2, 6, 5), "flattened": (2, 5)}


@pytest.mark.julia
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize("name", SECOND_OPINIONS)
def test_julia_says_the_same(name: str, parameterization: str) -> None:
    rng = np.random.default_rng(4)
    shape = SHAPES.get(name, (4,))
    x1, x2 = rng.standard_normal((3, *shape)), rng.standard_normal((2, *shape))
    for other in (None, x2):
        here, there = (
            infinite.kernels(SECOND_OPINIONS[name], x1, other, w_std=1.3, b_std=0.4, parameterization=parameterization,
                             backend=backend)
            for backend in (None, "julia")
        )  # fmt: skip
        np.testing.assert_allclose(there.nngp, here.nngp, rtol=0, atol=1e-10 * np.abs(here.nngp).max())
        np.testing.assert_allclose(there.ntk, here.ntk, rtol=0, atol=1e-10 * np.abs(here.ntk).max())


@pytest.mark.julia
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_julia_says_the_same_of_every_activation(activation: str) -> None:
    layers = [ub.Dense(3, 4, activation), ub.Dense(4, 1)]
    x = np.random.default_rng(5).standard_normal((4, 3))
    x[3] = 1.001 * x[0]  # almost the same direction, where slopes of kinks are steep
    here, there = (infinite.kernels(layers, x, w_std=1.2, b_std=0.1, backend=name) for name in (None, "julia"))
    np.testing.assert_allclose(there.nngp, here.nngp, rtol=0, atol=1e-10 * np.abs(here.nngp).max())
    np.testing.assert_allclose(there.ntk, here.ntk, rtol=0, atol=1e-10 * np.abs(here.ntk).max())


def test_kernels_larger_than_memory_go_to_files(tmp_path: Path) -> None:
    layers = SECOND_OPINIONS["two layers"]
    x = np.random.default_rng(6).standard_normal((40, 4))
    files = {
        name: np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float64, (40, 40))
        for name in ("nngp", "ntk")
    }
    # So little memory that there are many blocks.
    infinite.kernels(layers, x, w_std=1.2, b_std=0.1, memory=12 * 8 * 64, threads=1, out=files)
    whole = infinite.kernels(layers, x, w_std=1.2, b_std=0.1)
    for name, file in files.items():
        file.flush()
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), getattr(whole, name), rtol=1e-13)
    ntk = np.load(tmp_path / "ntk.npy", mmap_mode="r")
    assert ub.spectrum(ntk).verdict == "PSD"
    y = np.sin(x[:, :1])
    found = ub.predict.solve(ntk, y, diag_reg=1e-2, rank=10, progress=False)
    system = whole.ntk + found.reg * np.eye(40)
    np.testing.assert_allclose(system @ found.coefficients, y, atol=1e-5)


def test_files_and_engines_that_do_not_fit_are_refused(untyped: None) -> None:
    layers = SECOND_OPINIONS["two layers"]
    x = np.random.default_rng(6).standard_normal((5, 4))
    calls: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"out": {"ntk": np.empty((5, 5))}}, OptionError),
        ({"get": "ntk", "out": {"ntk": np.empty((5, 4))}}, ShapeError),
        ({"get": "ntk", "out": {"ntk": np.empty((5, 5), dtype=int)}}, OptionError),
        ({"get": "ntk", "out": {"ntk": [[0.0] * 5] * 5}}, OptionError),
        ({"backend": "torch"}, OptionError),
    ]
    for options, error in calls:
        with pytest.raises(error):
            infinite.kernels(layers, x, w_std=1.0, b_std=0.0, **options)


@pytest.mark.parametrize("backend", [None, pytest.param("julia", marks=pytest.mark.julia)])
def test_entries_that_are_not_finite_are_not_given(backend: str | None) -> None:
    layers, x = [ub.Dense(2, 3, "relu"), ub.Dense(3, 1)], np.array([[1.0, 2.0], [3.0, -1.0]])
    with pytest.raises(NumericalError, match=r"(nngp|ntk)\[0, 0\] is (nan|inf)"):
        ub.infinite.kernels(layers, x * 1e200, w_std=1.4, b_std=0.1, backend=backend)
