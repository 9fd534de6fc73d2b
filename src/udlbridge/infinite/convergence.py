"""How finite networks approach the infinite one: the oracle that the formulas of `kernels` are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.displays import Displayed, draw
from udlbridge.errors import OptionError
from udlbridge.infinite.kernels import kernels, own_samples
from udlbridge.infinite.widening import checked_widths, widened
from udlbridge.kernels.ntk import ntk
from udlbridge.networks.inputs import plausible_shape
from udlbridge.networks.layers import Layer
from udlbridge.networks.model import Model
from udlbridge.options import checked_count, checked_not_negative, checked_positive
from udlbridge.words import EngineWord


@dataclass(frozen=True, eq=False, repr=False)
class Convergence(Displayed):
    """Distances of empirical kernels, averaged over draws, from the infinite ones, relative in Frobenius norm.

    `ntk` and `nngp` give, by engine, one distance for each of the `widths`. The NNGP kernel of a finite network is that
    of the features before its last layer. Both distances are about c / sqrt(width x draws) where the formulas are
    right, as long as draws are no more than widths: beyond, the mean over draws itself is off by 1 / width. `single` is
    the root mean square distance of the NTK of one draw, c / sqrt(width).

    Examples:
        >>> found = ub.converges([ub.Dense(2, 8, "relu"), ub.Dense(8, 1)], widths=(8, 32), draws=2, engines=["torch"])
        >>> found.ntk["torch"].shape, found.draws
        ((2,), 2)
    """

    widths: tuple[int, ...]
    draws: int
    ntk: Mapping[str, Float[np.ndarray, " widths"]]
    nngp: Mapping[str, Float[np.ndarray, " widths"]]
    single: Mapping[str, Float[np.ndarray, " widths"]]

    def constant(self, engine: EngineWord) -> float:
        """The largest distance of the NTK times sqrt(width x draws): bounded, where the formulas are right."""
        return float(np.max(self.ntk[engine] * np.sqrt(np.array(self.widths) * self.draws)))

    def slope(self, engine: str) -> float:
        """The slope of the log distance of one draw against log width, by least squares: -1/2 in the limit."""
        return float(np.polyfit(np.log(self.widths), np.log(self.single[engine]), 1)[0])

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready data."""
        return {
            "widths": list(self.widths),
            "draws": self.draws,
            "ntk": {name: values.tolist() for name, values in self.ntk.items()},
            "nngp": {name: values.tolist() for name, values in self.nngp.items()},
            "single": {name: values.tolist() for name, values in self.single.items()},
        }

    def as_rows(self) -> list[dict[str, Any]]:
        """What the table in a notebook shows, a mapping for each width and engine."""
        return [
            {
                "width": width, "engine": name, "one draw": float(self.single[name][index]),
                "NTK": float(self.ntk[name][index]), "NNGP": float(self.nngp[name][index]),
            }
            for index, width in enumerate(self.widths) for name in self.ntk
        ]  # fmt: skip

    def headline(self) -> str:
        """The line over the table in a notebook: how distances fall with the width."""
        slopes = ", ".join(f"{name} {self.slope(name):.2f}" for name in self.ntk) if len(self.widths) > 1 else "unknown"
        return f"{self.draws} draws; slope of the log distance of one by log width: {slopes} (-0.5 in the limit)"

    def plot(self, ax: Any = None) -> Any:
        """Distances by width on logarithmic axes, on `ax` or a new figure; returns the Axes."""
        return draw("infinite:draw_convergence", ax, self, "finite networks and the infinite one")

    def __str__(self) -> str:
        lines = [f"{'width':>8}  {'engine':<10}  {'one draw':>9}  {'NTK':>9}  {'NNGP':>9}  NTK x sqrt(width x draws)"]
        for index, width in enumerate(self.widths):
            for name in self.ntk:
                single, ntk, nngp = (float(by[name][index]) for by in (self.single, self.ntk, self.nngp))
                scaled = ntk * math.sqrt(width * self.draws)
                lines.append(f"{width:>8}  {name:<10}  {single:>9.2e}  {ntk:>9.2e}  {nngp:>9.2e}  {scaled:.3g}")
        if len(self.widths) > 1:
            slopes = ", ".join(f"{name} {self.slope(name):.2f}" for name in self.ntk)
            lines.append(f"slope of the log distance of one draw by log width: {slopes} (-0.5 in the limit)")
        return "\n".join(lines)


def converges(
    model: Model | Sequence[Layer],
    widths: Sequence[int] = (32, 128, 512),
    draws: int = 16,
    *,
    x: np.ndarray | None = None,
    w_std: float = 1.0,
    b_std: float = 0.0,
    engines: str | Sequence[EngineWord] | None = None,
    seed: int = 0,
) -> Convergence:
    """Draw finite networks in the NTK parameterization, and compare their empirical kernels with the infinite ones.

    The infinite kernels are formulas; this is where they meet the networks that they are about.

    Args:
        model: a Model or its layers; every hidden layer gets each of the `widths`.
        widths: neurons, or channels, of the hidden layers.
        draws: networks for each width.
        x: samples (n, *D); None means six normal samples of the shape that the layers take.
        w_std, b_std: as for `kernels`.
        engines: engines that compute the empirical kernels; None means all that can run here.
        seed: of the weights, the same for all engines.

    Raises:
        LayerError: as `kernels`; a chain that does not end in weights.
        OptionError, InputError, BackendUnavailable: what is wrong with the rest.

    Source: Jacot, Gabriel, Hongler (2018), theorem 1; Lee et al. (2018).

    Examples:
        >>> layers = [ub.Dense(2, 8, "relu"), ub.Dense(8, 1)]
        >>> found = ub.converges(layers, widths=(8, 512), draws=4, engines=["torch"])
        >>> bool(found.single["torch"][1] < found.single["torch"][0])
        True
    """
    w_std, b_std = checked_positive("w_std", w_std), checked_not_negative("b_std", b_std)
    counts = checked_widths(widths)
    draws, seed = checked_count("draws", draws, 1), checked_count("seed", seed, 0)
    network = model if isinstance(model, Model) else Model(model)
    samples = _samples(network, x, seed)
    wide = {width: Model(widened(network.layers, width, samples.shape[1:]), dtype="float64") for width in counts}
    exact = kernels(network, samples, w_std=w_std, b_std=b_std)
    names = backends.one_or_more(engines)
    ntk_gap: dict[str, list[float]] = {name: [] for name in names}
    nngp_gap: dict[str, list[float]] = {name: [] for name in names}
    single: dict[str, list[float]] = {name: [] for name in names}
    for width in counts:
        generator = np.random.default_rng([seed, width])
        drawn = [_drawn(wide[width], w_std, b_std, generator) for _ in range(draws)]
        for name in names:
            found = [_empirical(one, samples, w_std, b_std, name) for one in drawn]
            ntks, nngps = np.array([one for one, _ in found]), np.array([other for _, other in found])
            ntk_gap[name].append(_distance(ntks.mean(axis=0), exact.ntk))
            nngp_gap[name].append(_distance(nngps.mean(axis=0), exact.nngp))
            single[name].append(math.sqrt(np.mean([_distance(one, exact.ntk) ** 2 for one in ntks])))
    return Convergence(counts, draws, *(_arrays(by) for by in (ntk_gap, nngp_gap, single)))


def _arrays(by_engine: Mapping[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in by_engine.items()}


def _distance(found: np.ndarray, exact: np.ndarray | None) -> float:
    assert exact is not None  # both kernels were asked for
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _samples(network: Model, x: np.ndarray | None, seed: int) -> np.ndarray:
    if x is not None:
        return own_samples(network, x, "x")[1].astype(np.float64)
    shape = plausible_shape(network)
    if shape is None:
        raise OptionError("no samples", allowed="x (n, *D)", remedy="give samples of the shape that the layers take")
    return np.random.default_rng(seed).standard_normal((6, *shape))


def _drawn(model: Model, w_std: float, b_std: float, generator: np.random.Generator) -> Model:
    scales = {name: _scale(name, value.shape, w_std, b_std) for name, value in model.params.items()}
    return model.with_params(
        {name: scales[name] * generator.standard_normal(value.shape) for name, value in model.params.items()}
    )


def _scale(name: str, shape: tuple[int, ...], w_std: float, b_std: float) -> float:
    """What a parameter is multiplied by in the NTK parameterization: w_std / sqrt(fan_in), or b_std."""
    return b_std if len(shape) == 1 else w_std / math.sqrt(math.prod(shape[1:]))


def _empirical(
    model: Model, x: np.ndarray, w_std: float, b_std: float, engine: EngineWord
) -> tuple[np.ndarray, np.ndarray]:
    """The NTK by the factors of the parameterization, and the NNGP kernel of the last hidden layer's features.

    d f / d omega = scale d f / d theta: parameters of one scale go together. The last layer's own share of the kernel,
    w^2 / width h h' + b^2, is the NNGP kernel.
    """
    scales: dict[float, list[str]] = {}
    for name, value in model.params.items():
        scales.setdefault(_scale(name, value.shape, w_std, b_std), []).append(name)
    last = list(model.params)[-1].rpartition(".")[0]
    total, share = np.zeros((len(x), len(x))), np.zeros((len(x), len(x)))
    for scale, names in scales.items():
        own = [name for name in names if name.rpartition(".")[0] == last]
        others = [name for name in names if name not in own]
        if others:
            total += scale**2 * ntk(model, x, outputs="mean", params=others, backend=engine)
        if own:
            share += scale**2 * ntk(model, x, outputs="mean", params=own, backend=engine)
    return total + share, share
