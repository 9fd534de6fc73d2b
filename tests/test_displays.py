"""How results show themselves: short in a shell, as a table in a notebook, as a data frame, as a picture."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import udlbridge as ub
from udlbridge.analysis.checking import Comparison
from udlbridge.displays import COLUMNS, LINES, Displayed, Lines, html_table, shown
from udlbridge.errors import OptionError
from udlbridge.studies.reproduction import KernelResult, Reproduction

X = np.random.default_rng(0).normal(size=(12, 4))
MODEL = ub.Model([ub.Dense(4, 6, "tanh"), ub.Dense(6, 3)], dtype="float64")
K = ub.ntk(MODEL, X, backend="reference")
Y = np.arange(12) % 3
GRAPH = ub.Graph(
    [ub.Node("z", "linear", ("x", "w"), source="body"), ub.Node("y", "linear", ("z", "w"))],
    "y", params={"w": np.ones((4, 4))}, sample_shape=(4,),
)  # fmt: skip

RESULTS: dict[str, Callable[[Path], Any]] = {
    "Model": lambda folder: ub.models.small_resnet(),
    "Summary": lambda folder: ub.models.lenet5().summary(np.zeros((2, 1, 28, 28))),
    "CheckReport": lambda folder: ub.check(MODEL, X, backends="torch, reference"),
    "PortReport": lambda folder: ub.compare_models(MODEL, MODEL, X, backend="reference"),
    "Plan": lambda folder: ub.plan(MODEL, 1000, backend="reference", calibrate=False),
    "Spectrum": lambda folder: ub.spectrum(np.diag(np.arange(1.0, 1001.0))),
    "TrainingRun": lambda folder: ub.train(MODEL, X, Y, epochs=3, batch_size=1, backend="reference", progress=False),
    "KernelStore": lambda folder: ub.compute_kernel(MODEL, X, folder / "k.zarr", backend="reference"),
    "SimilarityMap": lambda folder: ub.similarity_map(MODEL, MODEL, X, backend="reference"),
    "Solution": lambda folder: ub.predict.solve(K, np.eye(3)[Y], diag_reg=0.1),
    "Graph": lambda folder: GRAPH,
    "Estimate": lambda folder: ub.trace(K),
    "GradientFlow": lambda folder: ub.predict.gradient_flow(K + np.eye(12), np.eye(3)[Y]),
    "GradientDescent": lambda folder: ub.predict.gradient_descent(K, np.eye(3)[Y], learning_rate=0.1),
    "Prediction": lambda folder: ub.predict.gradient_flow(K + np.eye(12), np.eye(3)[Y]).at(1.0, k_test=K[:4]),
    "Prediction over time": lambda folder: ub.predict.gradient_flow(K + np.eye(12), np.eye(3)[Y]).at(
        [0.0, 2.0, 1.0, np.inf]
    ),
    "AlignmentTest": lambda folder: ub.alignment_test(K, K, permutations=99, seed=0),
    "AlignmentInterval": lambda folder: ub.alignment_interval(K, K[::-1, ::-1]),
    "SignalReport": lambda folder: ub.signal_report(MODEL, X, backend="reference"),
    "Posterior": lambda folder: ub.predict.posterior(K, K, K, np.eye(3)[Y], diag_reg=0.1),
    "Ensemble": lambda folder: ub.predict.infinite_ensemble(K, K[:5], K[:5, :5], np.eye(3)[Y], diag_reg=0.1),
    "SpectralDensity": lambda folder: ub.spectral_density(K),
    "Repair": lambda folder: ub.repair(K - 0.5 * np.eye(12)),
    "Convergence": lambda folder: ub.converges(
        [ub.Dense(4, 8, "relu"), ub.Dense(8, 1)], widths=(4, 8), draws=2, engines=["reference"]
    ),
    "Kernels": lambda folder: ub.infinite.kernels(
        [ub.Dense(4, 8, "relu"), ub.Dense(8, 1)], X, w_std=1.4, b_std=0.1
    ),
    "InfiniteStore": lambda folder: ub.infinite.compute_kernel(
        [ub.Dense(4, 8, "relu"), ub.Dense(8, 1)], X, folder / "k.zarr", w_std=1.4, b_std=0.1, progress=False
    ),
    "LinearizationStudy": lambda folder: ub.study_linearization(
        ub.Model([ub.Dense(4, 3, "tanh"), ub.Dense(3, 1)], dtype="float64"), X, X[:, 0], widths=(3, 6), steps=4,
        draws=1, engines="reference",
    ),
    "TaylorExpansion": lambda folder: ub.linearize(MODEL),
    "TaylorExpansion of a graph": lambda folder: ub.taylor_expand(GRAPH, 3),
    "LineSearch": lambda folder: ub.optimize.line_search(lambda t: (t - 0.3) ** 2),
    "Descent": lambda folder: ub.optimize.descend(
        ub.Function(lambda p: ub.expressions.total(p**2), backend="reference"), np.ones(2), steps=100, step_size=0.1
    ),
    "Figures": lambda folder: ub.practicals.run("losses", "reference"),
    "Reproduction": lambda folder: Reproduction(
        *({"torch": KernelResult(K, ub.spectrum(K))},) * 2,
        (Comparison("method 1 kernel", "torch", "recorded Flux", 1e-7, 1e-5),), {"julia": "it is not there"}, {},
    ),
    **{
        f"{name} of one output": make for name, make in {
            "Prediction": lambda folder: ub.predict.gradient_flow(K + np.eye(12), X[:, 0]).at(1.0, k_test=K[:4]),
            "Prediction over time": lambda folder: ub.predict.gradient_flow(K + np.eye(12), X[:, 0]).at([0.0, 1.0]),
            "Posterior": lambda folder: ub.predict.posterior(K, K[:5], K[:5, :5], X[:, 0], diag_reg=0.1),
            "Ensemble": lambda folder: ub.predict.infinite_ensemble(K, K[:5], K[:5, :5], X[:, 0], diag_reg=0.1),
        }.items()
    },
    "AlignmentStudy": lambda folder: ub.study_alignment(
        (X, Y), (X, Y), backends="reference", epochs=8, batch_size=12, width=3, progress=False,
        model=ub.Model([ub.Dense(4, 5, "relu"), ub.Dense(5, 3)], dtype="float64"),
    ),
}  # fmt: skip
NO_PICTURE = {
    "Model": "a table of layers",
    "Summary": "a table of layers",
    "Graph": "a table of nodes",
    "Plan": "a list of facts",
    "TaylorExpansion": "a table of layers",
    "TaylorExpansion of a graph": "a table of nodes",
    "LineSearch": "brackets of a function, which its practical draws",
    "Descent": "a path, which its practical draws over its function",
    "Figures": "numbers beside each other",
    "Solution": "coefficients of a system: what they predict has a picture",
    "Estimate": "one number with its error",
    "AlignmentInterval": "one number with two ends, which its text says",
    "GradientFlow": "a path: where it leads, `.at(t)`, has a picture",
    "GradientDescent": "a path: where it leads, `.after(steps)`, has a picture",
    "Kernels": "two arrays: their spectra have pictures",
    "Repair": "how far it went, in numbers; the spectra before and after have pictures",
}
"""Results without `.plot()`, and why."""

PICTURES = [name for name in RESULTS if name not in NO_PICTURE and name.partition(" of one")[0] not in NO_PICTURE]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in RESULTS.items()}


def test_results_can_be_named_in_annotations() -> None:
    """What public functions give, by their types, is public where they are."""
    modules = [ub, ub.predict, ub.infinite]
    public = {getattr(module, name) for module in modules for name in module.__all__ if name[0].isupper()}
    for module in modules:
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isfunction(function):
                continue
            home = vars(inspect.getmodule(function))
            for word in re.findall(r"\w+", str(inspect.signature(function).return_annotation)):
                found = home.get(word)
                if isinstance(found, type) and issubclass(found, Displayed):
                    assert found in public, f"{name} gives a {word}"


@pytest.mark.parametrize("name", RESULTS)
def test_a_repr_is_short(name: str, results: dict[str, Any]) -> None:
    lines = repr(results[name]).splitlines()
    assert 1 <= len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("name", RESULTS)
def test_a_notebook_shows_a_table(name: str, results: dict[str, Any]) -> None:
    page = results[name]._repr_html_()
    assert len(page) < 20_000
    assert "<table>" in page


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "CheckReport": "CheckReport: torch, reference: agree; worst",
        "PortReport": "PortReport: the same network: budget 1e-12",
        "Spectrum": "Spectrum: PSD: 1000 eigenvalues",
        "Solution": "<p>Solution</p>",
        "Graph": "<p>Graph(2 nodes, (4,) -&gt; (4,)",
        "Estimate": "(exact)</p>",
        "Prediction": "Prediction: 3 outputs of 12 training samples and 4 test samples at t = 1<",
        "SignalReport": "<p>SignalReport: standard deviations in 2 layers: outputs from ",
        "AlignmentInterval": "<p>AlignmentInterval: alignment ",
        "LinearizationStudy": "<p>LinearizationStudy: departures at 2 widths, from 1 start each; slope of their log",
        "Reproduction": "<p>Reproduction: all agree: worst 1.00e-07, budget 1e-05",
        "Prediction of one output": "Prediction: 1 output of 12 training samples and 4 test samples at t = 1<",
    }.items(),
)
def test_a_notebook_says_first_what_was_found(name: str, said: str, results: dict[str, Any]) -> None:
    assert said in results[name]._repr_html_()


def test_the_table_of_a_port_ends_in_the_whole_networks(results: dict[str, Any]) -> None:
    assert [row["first"] for row in results["PortReport"].as_rows()[-4:]] == [
        "outputs", "kernel", "eigenvalues", "d f / d x",
    ]  # fmt: skip


def test_a_graph_has_a_row_for_each_node_and_counts_what_is_shared_once() -> None:
    rows = GRAPH.as_rows()
    assert [(row["node"], row["operation"], row["inputs"], row["shape"]) for row in rows] == [
        ("z", "linear", "x, w", (1, 4)), ("y", "linear", "z, w", (1, 4)),
    ]  # fmt: skip
    assert [row["parameters"] for row in rows] == [16, 0]
    assert rows[0]["of"] == "body"


def test_a_prediction_has_a_row_for_each_sample_and_time(results: dict[str, Any]) -> None:
    found = results["Prediction"]
    assert found.test is not None
    rows = list(found.as_rows())
    assert [(row["samples"], row["sample"]) for row in rows] == [
        *(("test", index) for index in range(4)), *(("train", index) for index in range(12)),
    ]  # fmt: skip
    assert [rows[5][f"output {output}"] for output in range(3)] == found.train[1].tolist()
    over = results["Prediction over time"]
    rows = list(over.as_rows())
    assert len(rows) == 4 * 12
    assert (rows[25]["time"], rows[25]["sample"]) == (1.0, 1)
    assert rows[25]["output 2"] == over.train[2, 1, 2]


def test_a_table_makes_the_rows_that_it_shows_alone() -> None:
    made = []

    def row(index: int) -> dict[str, int]:
        made.append(index)
        return {"index": index}

    class Long(Displayed):
        def __str__(self) -> str:
            return "long"

        def as_rows(self) -> Lines:
            return Lines(10**9, row)

    page = Long()._repr_html_()
    assert "and 999,999,940 rows more" in page
    assert len(made) < 200


def test_what_has_no_picture_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="permutations=1000"):
        ub.alignment_test(K, K, permutations=0).plot()
    store = ub.compute_kernel(MODEL, X, tmp_path / "k.zarr", backend="reference", outputs="full", progress=False)
    with pytest.raises(OptionError, match=r"imshow\(store\[:100, :100, 0, 0\]\)"):
        store.plot()


def test_times_are_drawn_in_order_and_infinity_is_not(results: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    results["Prediction over time"].plot(ax)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), results["Prediction over time"].train[[0, 2, 1], 0, 0])


@pytest.mark.parametrize("name", RESULTS)
def test_a_table_is_a_frame(name: str, results: dict[str, Any]) -> None:
    pytest.importorskip("pandas")
    frame = results[name].to_frame()
    assert len(frame) == len(results[name].as_rows()) > 0


def test_what_has_no_table_says_so() -> None:
    class Words(Displayed):
        def __str__(self) -> str:
            return "<words>"

    assert Words()._repr_html_() == "<pre>&lt;words&gt;</pre>"
    with pytest.raises(OptionError, match="has no table"):
        Words().to_frame()


def test_a_posterior_has_standard_deviations(results: dict[str, Any]) -> None:
    found = results["Posterior"]
    row = found.as_rows()[3]
    assert [row[f"output {output}"] for output in range(3)] == found.mean[3].tolist()
    assert row["+-"] == np.sqrt(max(found.covariance[3, 3], 0))
    full = np.einsum("ij,ab->ijab", K, np.diag([1.0, 2.0, 3.0]))
    coupled = ub.predict.posterior(full, full[:2], full[:2, :2], np.eye(3)[Y], diag_reg=0.1)
    assert coupled.covariance is not None
    assert coupled.as_rows()[1]["+- 2"] == np.sqrt(coupled.covariance[1, 2, 1, 2])


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_axes(name: str, results: dict[str, Any]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.axes import Axes

    ax = results[name].plot()
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert results[name].plot(ax) is ax
    pyplot.close("all")


def test_the_summary_of_a_network() -> None:
    found = ub.models.lenet5().summary(np.zeros((2, 1, 28, 28)))
    assert found.as_rows()[0]["output"] == (6, 28, 28)
    assert sum(row["parameters"] for row in found.as_rows()) == 61_706
    assert "400" in str(found)
    with pytest.raises(ub.UDLBridgeError):
        ub.models.lenet5().summary(np.zeros((2, 3)))


def test_words_of_users_are_text_and_not_markup() -> None:
    page = html_table([{"<b>": "<script>alert(1)</script>"}], caption="a & b")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;" in page
    assert "a &amp; b" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (0.123456, "0.1235"), (61706, "61,706"), ((3, 32, 32), "3 x 32 x 32"), ((), "()")],
)
def test_cells(value: object, text: str) -> None:
    assert shown(value) == text
