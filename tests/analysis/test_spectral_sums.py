"""Traces, norms, ranks, log-determinants and densities: against known spectra, over seeds, and what has none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import udlbridge as ub
from small_stores import store_of
from udlbridge.analysis.densities import SpectralDensity
from udlbridge.errors import InputError, NumericalError, OptionError, ShapeError
from udlbridge.kernels.factored import FactoredKernel

N = 100
HELD = 96
"""Of 100 seeds; 95 are promised."""

SPECTRA = {
    "powers": (1.0 + np.arange(N)) ** -1.5,
    "decay": 0.9 ** np.arange(N) + 1e-3,
    "close": np.linspace(0.7, 1.3, N),
    "step": np.where(np.arange(N) < 20, 1.0, 0.01),
}


def known(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with these eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values),) * 2))[0]
    kernel = (basis * values) @ basis.T
    return (kernel + kernel.T) / 2


def entropy_rank(values: np.ndarray) -> float:
    shares = values[values > 0] / values[values > 0].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


TRUTHS: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray], float]]] = {
    "trace": (ub.trace, lambda v: float(v.sum())),
    "frobenius_norm": (ub.frobenius_norm, lambda v: float(np.sqrt((v**2).sum()))),
    "participation": (
        partial(ub.effective_rank, kind="participation"),
        lambda v: float(v.sum() ** 2 / (v**2).sum()),
    ),
    "entropy": (partial(ub.effective_rank, probes=8, steps=40), entropy_rank),
    "log_det": (partial(ub.log_det, shift=0.01, probes=8, steps=40), lambda v: float(np.log(v + 0.01).sum())),
}
QUICK = ("trace", "frobenius_norm", "participation")


def held(kernel: Any, what: str, values: np.ndarray, seeds: int = 100) -> int:
    """In how many of the seeds the truth lies within the error bar."""
    function, truth = TRUTHS[what]
    expected = truth(values)
    found = [function(kernel, seed=seed) for seed in range(seeds)]
    assert all(one.error > 0 and one.seed == seed for seed, one in enumerate(found))
    return sum(one.low <= expected <= one.high for one in found)


@pytest.mark.sampled
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("what", QUICK)
def test_error_bars_hold(what: str, spectrum: str) -> None:
    assert held(aslinearoperator(known(SPECTRA[spectrum])), what, SPECTRA[spectrum]) >= HELD


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("what", ["entropy", "log_det"])
def test_error_bars_of_functions_hold(what: str, spectrum: str) -> None:
    values = SPECTRA[spectrum][:60]
    assert held(aslinearoperator(known(values)), what, values) >= HELD


@pytest.mark.slow
def test_error_bars_hold_for_a_network_of_known_spectrum() -> None:
    # A linear network without a bias has the kernel X X', whose eigenvalues are the squares of X's singular values.
    rng = np.random.default_rng(1)
    left = np.linalg.qr(rng.standard_normal((N, 12)))[0]
    right = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    values = np.r_[2.0 ** -np.arange(12.0), np.zeros(N - 12)]
    x = (left * np.sqrt(values[:12])) @ right
    model = ub.Model([ub.Dense(12, 1, bias=False)], dtype="float64")
    operator = ub.ntk_operator(model, x, outputs=0, backend="reference")
    for what in QUICK:
        # Fewer probes than the rank: with 12 of them, XTrace would be exact.
        function, truth = TRUTHS[what]
        found = [function(operator, probes=6, seed=seed) for seed in range(100)]
        assert sum(one.low <= truth(values) <= one.high for one in found) >= HELD
    found = ub.log_det(operator, shift=0.1, seed=0)
    assert found.low <= np.log(values + 0.1).sum() <= found.high


def test_a_bar_that_is_too_short_would_be_seen() -> None:
    values = SPECTRA["close"]
    operator = aslinearoperator(known(values))
    found = [ub.trace(operator, seed=seed) for seed in range(100)]
    assert sum(abs(one.value - values.sum()) <= one.error / 4 for one in found) < HELD


@pytest.mark.parametrize("what", TRUTHS)
def test_with_their_entries_kernels_have_exact_sums(what: str, tmp_path: Path) -> None:
    function, truth = TRUTHS[what]
    phi = np.random.default_rng(2).standard_normal((21, 30))
    store = store_of(tmp_path / "k.zarr")
    for kernel in (phi @ phi.T, FactoredKernel(phi), store):
        found = function(kernel)
        assert found.error == 0
        assert found.seed is None
        assert "(exact)" in str(found)
        values = np.linalg.eigvalsh(np.asarray(kernel[:, :], dtype=np.float64))
        np.testing.assert_allclose(found.value, truth(values), rtol=1e-6 if kernel is store else 1e-9)


def test_many_probes_give_the_exact_trace_of_an_operator() -> None:
    values = SPECTRA["powers"]
    found = ub.trace(aslinearoperator(known(values)), probes=N // 2, seed=0)
    np.testing.assert_allclose(found.value, values.sum(), rtol=1e-12)
    assert found.error < 1e-12


def test_probes_as_many_as_large_eigenvalues_leave_little_to_chance() -> None:
    values = np.where(np.arange(N) < 10, 1.0, 1e-9)
    found = ub.trace(aslinearoperator(known(values)), probes=16, seed=0)
    np.testing.assert_allclose(found.value, values.sum(), rtol=1e-7)
    assert found.error < 1e-6


@pytest.mark.parametrize("exponent", [-900, 900])
def test_units_do_not_matter(exponent: int) -> None:
    kernel = known(SPECTRA["powers"])
    size = 2.0**exponent
    for given in (kernel * size, aslinearoperator(kernel * size)):
        same = kernel if isinstance(given, np.ndarray) else aslinearoperator(kernel)
        for what in ("trace", "frobenius_norm"):
            function = TRUTHS[what][0]
            np.testing.assert_allclose(function(given, seed=1).value, size * function(same, seed=1).value, rtol=1e-10)
        rank = TRUTHS["entropy"][0]
        np.testing.assert_allclose(rank(given, seed=1).value, rank(same, seed=1).value, rtol=1e-6)


def smoothed(values: np.ndarray, found: SpectralDensity) -> np.ndarray:
    """The density by its definition, from eigenvalues."""
    floor = found.floor or -np.inf
    positions = np.log10(np.maximum(values, floor)) if found.scale == "log" else values
    curves = np.exp(-(((found.points[:, None] - positions) / found.width) ** 2) / 2)
    return np.asarray(curves.sum(axis=1) / (len(values) * found.width * np.sqrt(2 * np.pi)))


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_the_density_of_few_samples_is_exact(scale: str) -> None:
    values = SPECTRA["step"]
    found = ub.spectral_density(known(values), scale=scale)
    np.testing.assert_allclose(found.density, smoothed(values, found), rtol=1e-6, atol=1e-9)
    assert not found.error.any()
    assert found.seed is None
    np.testing.assert_allclose(np.trapezoid(found.density, found.points), 1, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_error_bars_of_the_density_hold(spectrum: str, scale: str) -> None:
    values = SPECTRA[spectrum]
    operator = aslinearoperator(known(values))
    found = [ub.spectral_density(operator, scale=scale, steps=50, points=24, seed=seed) for seed in range(100)]
    within = [np.abs(one.density - smoothed(values, one)) <= one.error + 1e-12 for one in found]
    assert np.mean(within) >= HELD / 100


def test_densities_repeat_by_their_seed_and_have_a_picture(tmp_path: Path) -> None:
    from udlbridge.plots.kernels import density_figure

    operator = aslinearoperator(known(SPECTRA["decay"]))
    first, second = (ub.spectral_density(operator, seed=3) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first.products > 0
    assert "spectral density" in str(first)
    assert first.to_dict()["seed"] == 3
    figure = density_figure({"decay": first}, "a kernel")
    figure.savefig(tmp_path / "density.png")
    axes = figure.axes[0]
    assert "decade" in axes.get_ylabel()
    drawn = axes.lines[0].get_ydata()
    np.testing.assert_allclose(drawn, first.density)


FUNCTIONS = [*(function for function, _ in TRUTHS.values()), ub.spectral_density]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_kernels_are_named(function: Callable[..., Any]) -> None:
    good = known(SPECTRA["close"])
    skewed = good + np.triu(np.ones((N, N)), 1)
    hole = good.copy()
    hole[3, 3] = np.nan
    with pytest.raises(InputError, match=r"finite|nan"):
        function(hole)
    with pytest.raises(InputError, match="finite"):
        function(aslinearoperator(hole))
    with pytest.raises(InputError, match="not symmetric"):
        function(aslinearoperator(skewed))
    with pytest.raises(ShapeError):
        function(good[:3])
    with pytest.raises(OptionError):
        function(good, probes=2)
    with pytest.raises(OptionError):
        function(good, seed=-1)
    if function is not ub.trace:
        with pytest.raises(InputError, match="not symmetric"):
            function(skewed)


def test_what_is_not_positive_has_no_rank_and_no_logarithm() -> None:
    values = np.linspace(-1, 1, N)
    for kernel in (known(values), aslinearoperator(known(values))):
        with pytest.raises(NumericalError, match=r"positive semidefinite|trace"):
            ub.effective_rank(kernel, seed=0)
        with pytest.raises(NumericalError, match="positive definite"):
            ub.log_det(kernel, shift=0.1, seed=0)
    with pytest.raises(NumericalError, match="logarithm"):
        ub.spectral_density(-known(SPECTRA["close"]))
    singular = known(np.r_[np.ones(10), np.zeros(N - 10)])
    for kernel in (singular, aslinearoperator(singular)):
        with pytest.raises(NumericalError, match="larger shift"):
            ub.log_det(kernel, seed=0)
    with pytest.raises(NumericalError):
        ub.effective_rank(np.zeros((4, 4)))


def test_options_are_checked() -> None:
    kernel = known(SPECTRA["close"])
    for call in (
        lambda: ub.effective_rank(kernel, kind="stable"),
        lambda: ub.log_det(kernel, shift=-1.0),
        lambda: ub.spectral_density(kernel, scale="square"),
        lambda: ub.spectral_density(kernel, width=0.0),
        lambda: ub.spectral_density(kernel, points=1),
        lambda: ub.effective_rank(kernel, steps=0),
    ):
        with pytest.raises(OptionError):
            call()


def test_products_of_stores_estimate_where_eigenvalues_would_not_fit(tmp_path: Path) -> None:
    store = store_of(tmp_path / "k.zarr", n=60)
    values = np.linalg.eigvalsh(np.asarray(store[:, :], dtype=np.float64))
    rank = ub.effective_rank(store, exact_limit=0, probes=4, steps=30, seed=0)
    assert rank.low <= entropy_rank(values) <= rank.high
    assert rank.products > 0
    density = ub.spectral_density(store, exact_limit=0, probes=4, steps=60, seed=0)
    assert (np.abs(density.density - smoothed(values, density)) <= density.error + 1e-9).mean() > 0.9


def test_an_operator_is_not_asked_for_entries() -> None:
    kernel = known(SPECTRA["close"])
    operator = LinearOperator((N, N), matvec=lambda v: kernel @ v, matmat=lambda v: kernel @ v, dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ub.trace(operator, seed=0).products == 32
