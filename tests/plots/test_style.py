"""What all pictures have in common: their width, the size of letters, scales, whole numbers where something counts."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps, pyplot
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import udlbridge as ub
from udlbridge.analysis.checking import CheckReport, Comparison
from udlbridge.cli.targets import save_figure
from udlbridge.plots.kernels import agreement_figure, draw_kernel, spectrum_figure
from udlbridge.plots.style import POSITIVE, SIGNED, figure, line

K = np.diag(np.arange(1.0, 13.0))
FIGURES = {
    "agreement": lambda: agreement_figure({"a": K, "b": K + 1e-9, "c": K * (1 + 1e-12)}, "three engines"),
    "spectrum": lambda: spectrum_figure({"a": ub.spectrum(K)}, "a kernel"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_pictures_are_wide_and_their_letters_large(name: str, tmp_path: Path) -> None:
    drawn = FIGURES[name]()
    save_figure(drawn, tmp_path / "picture.png", None)
    width = struct.unpack(">I", (tmp_path / "picture.png").read_bytes()[16:20])[0]
    assert width >= 1200
    texts = [text for text in drawn.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 9


def test_rows_with_names_stand_apart_beside_a_wide_panel() -> None:
    names = [f"jacobian encoder.layer.{number}.attention.output.dense.weight" for number in range(60)]
    rows = [Comparison(name, "a", "b", 1e-8 * (1 + index), 1e-5) for index, name in enumerate(names)]
    ax = CheckReport(tuple(rows), ("a", "b"), {}, {}, {}, "float32", 3).plot()
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))
    assert ax.get_window_extent().width > 0.4 * ax.figure.bbox.width
    assert min(box.x0 for box in boxes) >= 0
    pyplot.close(ax.figure)


def test_differences_of_one_figure_have_one_scale() -> None:
    drawn: Figure = FIGURES["agreement"]()
    norms = [image.norm for ax in drawn.axes for image in ax.images if isinstance(image.norm, LogNorm)]
    assert len(norms) == 3
    assert len({(norm.vmin, norm.vmax) for norm in norms}) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_what_counts_is_whole(name: str) -> None:
    drawn = FIGURES[name]()
    drawn.draw_without_rendering()
    counted = [ax.xaxis for ax in drawn.axes if ax.get_xlabel() in ("sample j", "rank")]
    assert counted
    assert all(float(tick).is_integer() for axis in counted for tick in axis.get_ticklocs())


@pytest.mark.parametrize("size", [1, 2, 5, 12, 300])
def test_ranks_count_from_one(size: int) -> None:
    drawn = spectrum_figure({"a": ub.spectrum(np.diag(np.arange(1.0, size + 1)))}, "a kernel")
    drawn.draw_without_rendering()
    low, high = drawn.axes[0].get_xlim()
    ticks = [tick for tick in drawn.axes[0].get_xticks() if low <= tick <= high]
    assert ticks[0] == 1
    assert len(ticks) >= min(size, 4)
    assert max(ticks) <= size


def test_the_axis_of_a_spectrum_says_what_crosses_are() -> None:
    for label, kernel in {"eigenvalue": K, "|eigenvalue|": K - 6.5 * np.eye(12)}.items():
        assert spectrum_figure({"a": ub.spectrum(kernel)}, "a kernel").axes[0].get_ylabel() == label


def test_zero_is_the_middle_of_a_signed_map() -> None:
    with figure(5, 4) as (_, ax):
        draw_kernel(ax, np.array([[1.0, -0.2], [-0.2, 3.0]]), "signed")
    (image,) = ax.images
    assert image.get_cmap().name == SIGNED
    assert image.norm.vmin == -image.norm.vmax == -3


def lightness(colours: np.ndarray) -> np.ndarray:
    """What is left of colours (n, 4) in grey (Rec. 709)."""
    return np.asarray(colours)[:, :3] @ [0.2126, 0.7152, 0.0722]


def test_maps_can_be_read_in_grey() -> None:
    grey = lightness(colormaps[POSITIVE](np.linspace(0, 1, 64)))
    assert (np.diff(grey) > 0).all()
    grey = lightness(colormaps[SIGNED](np.linspace(0, 1, 65)))
    assert (np.diff(grey[:32]) > 0).all()  # both ends are darker than the white of zero
    assert (np.diff(grey[33:]) < 0).all()
    assert grey[32] > 0.9


BASELINES = Path(__file__).parent / "baselines"


@pytest.mark.parametrize("name", FIGURES)
def test_pictures_are_those_that_were_looked_at(name: str, tmp_path: Path) -> None:
    """Their letters aside, which each machine has of its own: lines, points, panels and colours."""
    drawn = FIGURES[name]()
    drawn.set_dpi(100)  # of the baselines: letters are laid out in whole pixels
    drawn.draw_without_rendering()  # the layout has its room for letters
    drawn.set_layout_engine("none")
    for text in drawn.findobj(Text):
        text.set_visible(False)
    drawn.savefig(tmp_path / f"{name}.png", dpi=50)
    assert compare_images(str(BASELINES / f"{name}.png"), str(tmp_path / f"{name}.png"), tol=3) is None


def test_lines_differ_by_more_than_their_colour() -> None:
    found = [(line(index)["linestyle"], line(index)["marker"]) for index in range(20)]
    assert len(set(found)) == len(found)
