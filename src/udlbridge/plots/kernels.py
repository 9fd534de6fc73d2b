"""Pictures of results. Each function takes results and returns a matplotlib Figure; none touches pyplot's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from udlbridge.analysis.densities import SpectralDensity
from udlbridge.analysis.verdicts import Spectrum


def draw_kernel(
    ax: Axes, kernel: np.ndarray, title: str, *, vmin: float | None = None, vmax: float | None = None
) -> Axes:
    """A heat map of a kernel matrix (n, n) with its colour bar."""
    image = ax.imshow(kernel, cmap="viridis", interpolation="nearest", vmin=vmin, vmax=vmax)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("sample j")
    ax.set_ylabel("sample i")
    _bar(ax, image)
    return ax


def draw_difference(ax: Axes, difference: np.ndarray, title: str, floor: float) -> Axes:
    """A map of |difference| on a logarithmic scale from `floor` up; what is smaller, and zero, is drawn as `floor`."""
    shown = np.maximum(np.abs(difference), floor)
    top = max(float(shown.max()), floor * 10)
    image = ax.imshow(shown, cmap="magma", interpolation="nearest", norm=LogNorm(floor, top))
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("sample j")
    ax.set_ylabel("sample i")
    _bar(ax, image)
    return ax


def draw_spectrum(ax: Axes, spectra: Mapping[str, Spectrum], title: str) -> Axes:
    """Eigenvalues by rank on a logarithmic scale, negative ones as crosses at |value|, and the tolerance."""
    markers = "osd^v"
    for index, (name, result) in enumerate(spectra.items()):
        values = result.eigenvalues[::-1]
        ranks = np.arange(1, len(values) + 1)
        positive = values > 0
        # Later engines are drawn smaller, so that equal values stay visible.
        size = 9 - 2.5 * index
        points = ax.plot(ranks[positive], values[positive], markers[index % 5], ms=size, mfc="none", label=name)
        negative = values < 0
        if negative.any():
            ax.plot(ranks[negative], -values[negative], "x", color=points[0].get_color(), label=f"{name}, negative")
    tolerance = max(result.tolerance for result in spectra.values())
    ax.axhline(tolerance, color="grey", ls="--", lw=1, label="tolerance of the PSD verdict")
    ax.set_yscale("log")
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue")
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=8)
    return ax


def draw_density(ax: Axes, densities: Mapping[str, SpectralDensity], title: str) -> Axes:
    """Shares of eigenvalues over the axis of the densities, the same for all, with their error bars as bands."""
    for name, found in densities.items():
        (line,) = ax.plot(found.eigenvalues, found.density, lw=1.5, label=name)
        if found.seed is not None:
            low, high = np.maximum(found.density - found.error, 0), found.density + found.error
            ax.fill_between(found.eigenvalues, low, high, color=line.get_color(), alpha=0.25, lw=0)
    logarithmic = all(found.scale == "log" for found in densities.values())
    if logarithmic:
        ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel(f"share of the eigenvalues for each {'decade' if logarithmic else 'unit'}")
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=8)
    return ax


def density_figure(densities: Mapping[str, SpectralDensity], title: str) -> Figure:
    """One panel with the spectral densities of several kernels."""
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    draw_density(figure.subplots(), densities, title)
    return figure


def agreement_figure(kernels: Mapping[str, np.ndarray], title: str) -> Figure:
    """Kernels of all engines side by side, and under them their differences, relative to the largest entry."""
    names = list(kernels)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    columns = max(len(names), len(pairs), 1)
    rows = 2 if pairs else 1
    figure = Figure(figsize=(3.6 * columns, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    scale = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    low = min(float(kernel.min()) for kernel in kernels.values())
    high = max(float(kernel.max()) for kernel in kernels.values())
    for ax, name in zip(axes[0], names, strict=False):
        draw_kernel(ax, kernels[name], name, vmin=low, vmax=high)
    floor = float(np.finfo(next(iter(kernels.values())).dtype).eps) / 10
    for ax, (first, second) in zip(axes[-1], pairs, strict=False):
        gap = (kernels[first].astype(np.float64) - kernels[second].astype(np.float64)) / scale
        draw_difference(ax, gap, f"|{first} - {second}| / largest", floor)
    for ax in axes[0][len(names) :]:
        ax.set_visible(False)
    if pairs:
        for ax in axes[1][len(pairs) :]:
            ax.set_visible(False)
    figure.suptitle(title)
    return figure


def spectrum_figure(spectra: Mapping[str, Spectrum], title: str) -> Figure:
    """One panel with the spectra of all engines."""
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    draw_spectrum(figure.subplots(), spectra, title)
    return figure


def _bar(ax: Axes, image: Any) -> None:
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=ax, shrink=0.85)
