"""Pictures of results. Each function takes results and returns a matplotlib Figure; none touches pyplot's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from udlbridge.analysis.densities import SpectralDensity
from udlbridge.analysis.verdicts import Spectrum
from udlbridge.plots.style import POSITIVE, SIGNED, SIZE, Places, canvas, figure, line


def draw_kernel(
    ax: Axes,
    kernel: np.ndarray,
    title: str,
    *,
    vmin: float | None = None,
    vmax: float | None = None,
    bar: bool = True,
) -> Axes:
    """A heat map of a kernel matrix (n, n) with its colour bar."""
    low = float(kernel.min()) if vmin is None else vmin
    high = float(kernel.max()) if vmax is None else vmax
    # Signs are seen where zero is the middle; without signs, lightness grows with the value.
    signed = low < 0 < high
    limit = max(-low, high)
    image = ax.imshow(
        kernel,
        cmap=SIGNED if signed else POSITIVE,
        interpolation="nearest",
        vmin=-limit if signed else low,
        vmax=limit if signed else high,
    )
    ax.set_title(title)
    _samples(ax)
    if bar:
        _bar(ax, image)
    return ax


def draw_difference(
    ax: Axes, difference: np.ndarray, title: str, floor: float, *, top: float | None = None, bar: bool = True
) -> Axes:
    """A map of |difference| on a logarithmic scale from `floor` up; what is smaller, and zero, is drawn as `floor`.

    `top` is the upper end, the same for all panels of a figure; None takes the largest of this one.
    """
    shown = np.maximum(np.abs(difference), floor)
    top = max(float(shown.max()) if top is None else top, floor * 10)
    image = ax.imshow(shown, cmap=POSITIVE, interpolation="nearest", norm=LogNorm(floor, top))
    ax.set_title(title)
    _samples(ax)
    if bar:
        _bar(ax, image)
    return ax


def draw_spectrum(ax: Axes, spectra: Mapping[str, Spectrum], title: str) -> Axes:
    """Eigenvalues by rank on a logarithmic scale, negative ones as crosses at |value|, and the tolerance.

    Of an incomplete spectrum the smallest stand at their own ranks, at the right end.
    """
    for index, (name, result) in enumerate(spectra.items()):
        values = result.eigenvalues[::-1]
        ranks = result.ranks
        positive = values > 0
        # Later engines are drawn smaller, so that equal values stay visible.
        size = 9 - 2.5 * index
        style = {**line(index), "linestyle": "", "markersize": size}
        points = ax.plot(ranks[positive], values[positive], **style, label=name)
        negative = values < 0
        if negative.any():
            ax.plot(ranks[negative], -values[negative], "x", color=points[0].get_color(), label=f"{name}, negative")
    tolerance = max(result.tolerance for result in spectra.values())
    ax.axhline(tolerance, color="grey", ls="--", lw=1, label="tolerance of the PSD verdict")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(Places())
    ax.set_xlabel("rank")
    crosses = any((result.eigenvalues < 0).any() for result in spectra.values())
    ax.set_ylabel("|eigenvalue|" if crosses else "eigenvalue")
    ax.set_title(title)
    ax.legend()
    return ax


def draw_density(ax: Axes, densities: Mapping[str, SpectralDensity], title: str) -> Axes:
    """Shares of eigenvalues over the axis of the densities, the same for all, with their error bars as bands."""
    for index, (name, found) in enumerate(densities.items()):
        style = {key: value for key, value in line(index).items() if key in ("color", "linestyle")}
        ax.plot(found.eigenvalues, found.density, lw=1.5, label=name, **style)
        if found.seed is not None:
            low, high = np.maximum(found.density - found.error, 0), found.density + found.error
            ax.fill_between(found.eigenvalues, low, high, color=style["color"], alpha=0.25, lw=0)
    logarithmic = all(found.scale == "log" for found in densities.values())
    if logarithmic:
        ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel(f"share of the eigenvalues for each {'decade' if logarithmic else 'unit'}")
    ax.set_title(title)
    ax.legend()
    return ax


def density_figure(densities: Mapping[str, SpectralDensity], title: str) -> Figure:
    """One panel with the spectral densities of several kernels."""
    with figure(*SIZE) as (drawn, ax):
        draw_density(ax, densities, title)
    return drawn


def agreement_figure(kernels: Mapping[str, np.ndarray], title: str) -> Figure:
    """Kernels of all engines side by side, and under them their differences, relative to the largest entry.

    All kernels have one scale, and all differences have one: a row has one colour bar.
    """
    names = list(kernels)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    columns = max(len(names), len(pairs), 1)
    scale = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    low = min(float(kernel.min()) for kernel in kernels.values())
    high = max(float(kernel.max()) for kernel in kernels.values())
    floor = float(np.finfo(next(iter(kernels.values())).dtype).eps) / 10
    gaps = [np.abs(kernels[a].astype(np.float64) - kernels[b].astype(np.float64)) / scale for a, b in pairs]
    top = max((float(gap.max()) for gap in gaps), default=floor)
    with canvas(max(3.1 * columns + 1.3, 5.0), 3.0 * (2 if pairs else 1) + 0.4) as drawn:
        axes = drawn.subplots(2 if pairs else 1, columns, squeeze=False)
        for ax, name in zip(axes[0], names, strict=False):
            draw_kernel(ax, kernels[name], name, vmin=low, vmax=high, bar=False)
        for ax, (first, second), gap in zip(axes[-1] if pairs else (), pairs, gaps, strict=False):
            draw_difference(ax, gap, f"|{first} - {second}|", floor, top=top, bar=False)
        for row, count, label in ((0, len(names), "kernel"), (1, len(pairs), "difference / largest entry")):
            for ax in axes[row][count:] if count else ():
                ax.set_visible(False)
            if count:
                # Beside the whole row, so that the panels of both rows stand below each other.
                drawn.colorbar(axes[row][0].images[0], ax=list(axes[row]), label=label, shrink=0.85)
        drawn.suptitle(title)
    return drawn


def spectrum_figure(spectra: Mapping[str, Spectrum], title: str) -> Figure:
    """One panel with the spectra of all engines."""
    with figure(*SIZE) as (drawn, ax):
        draw_spectrum(ax, spectra, title)
    return drawn


def _samples(ax: Axes) -> None:
    """Axes that count samples."""
    ax.set_xlabel("sample j")
    ax.set_ylabel("sample i")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def _bar(ax: Axes, image: Any) -> None:
    parent = ax.get_figure()
    assert parent is not None
    parent.colorbar(image, ax=ax, shrink=0.85)
