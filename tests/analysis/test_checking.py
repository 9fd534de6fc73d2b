"""`check` finds what is wrong, and says who is alone with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from rich.progress import Progress

import udlbridge as ub
from helpers import random_model, samples
from udlbridge import backends, errors
from udlbridge.analysis.vanishing import vanishing
from udlbridge.backends.reference.engine import ReferenceBackend

MODEL = random_model([4, 5, 3], ["tanh", "identity"], softmax=True)
X = samples(MODEL, 4)


class WrongInputJacobian(ReferenceBackend):
    """An engine with one mistake: its input derivatives are off by a part in a million."""

    def input_jacobian(self, model: ub.Model, x: np.ndarray) -> np.ndarray:
        return super().input_jacobian(model, x) * (1 + 1e-6)


@pytest.fixture
def wrong_julia(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistaken engine in Julia's place, so that the report has three sides everywhere."""
    wrong, real = WrongInputJacobian(), backends.get
    monkeypatch.setattr(backends, "get", lambda name=None, **_: wrong if name == "julia" else real(name))
    monkeypatch.setattr(backends, "availability", lambda name: backends.Availability(True))


def test_two_engines_agree() -> None:
    report = ub.check(MODEL, X, backends=["reference", "torch"])
    assert report.ok
    assert report.worst < 1e-14
    assert report.engines == ("torch", "reference")
    quantities = {row.quantity for row in report.comparisons}
    assert quantities == {
        "outputs", "full NTK", "eigenvalues", "input jacobian",
        *(f"jacobian {name}" for name in MODEL.params),
    }  # fmt: skip


@pytest.mark.julia
def test_three_engines_agree() -> None:
    for model in (MODEL, MODEL.astype("float32")):
        report = ub.check(model, X.astype(model.dtype))
        assert report.engines == ("julia", "torch", "reference")
        assert report.ok, str(report)
        assert {"Flux", "Zygote", "torch", "numpy"} <= set(report.versions)


@pytest.mark.usefixtures("wrong_julia")
def test_the_engine_that_is_alone_is_named() -> None:
    report = ub.check(MODEL, X)
    assert not report.ok
    assert report.alone == {"input jacobian": "julia"}
    assert "julia is alone in input jacobian" in str(report)
    assert "DISAGREE" in str(report)
    np.testing.assert_allclose(report.worst, 1e-6, rtol=1e-3)


@pytest.mark.usefixtures("wrong_julia")
def test_in_float32_the_same_mistake_is_within_the_budget() -> None:
    assert ub.check(MODEL.astype("float32"), X.astype(np.float32)).ok


def test_what_was_left_out_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    look = backends.availability
    gone = backends.Availability(False, "no Julia today", "get one")
    monkeypatch.setattr(backends, "availability", lambda name: gone if name == "julia" else look(name))
    report = ub.check(MODEL, X)
    assert report.skipped == {"julia": "no Julia today"}
    assert "julia was not compared: no Julia today" in str(report)
    with pytest.raises(errors.JuliaUnavailable, match=r"no Julia today.*get one"):
        ub.check(MODEL, X, backends=["julia", "torch"])


def test_a_report_about_one_engine_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = backends.Availability(False, "absent")
    monkeypatch.setattr(
        backends, "availability", lambda name: backends.Availability(True) if name == "reference" else gone
    )
    report = ub.check(MODEL, X)
    assert not report.ok
    assert "nothing to compare" in str(report)


def test_report_exports_to_json() -> None:
    report = ub.check(MODEL, X, backends=["torch", "reference"])
    exported = json.loads(json.dumps(report.to_dict()))
    assert exported["ok"] is True
    assert exported["engines"] == ["torch", "reference"]
    assert all(row["ok"] and row["budget"] == 1e-12 for row in exported["comparisons"])


def test_not_a_number_is_never_within_budget() -> None:
    from udlbridge.tolerances import relative_difference

    assert relative_difference(np.array([np.nan]), np.array([1.0])) == np.inf
    assert relative_difference(np.array([1.0]), np.array([np.inf])) == np.inf
    assert relative_difference(np.array([1e-300]), np.array([0.0])) == np.inf
    assert relative_difference(np.zeros(2), np.zeros(2)) == 0
    assert relative_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0


@pytest.mark.parametrize("place", [0, 12_345, -1])
def test_differences_are_found_wherever_they_are(place: int) -> None:
    """They are looked for piece by piece, whatever the layout and the dtype."""
    from udlbridge.tolerances import PIECE, relative_difference

    reference = np.random.default_rng(0).normal(size=(3, PIECE // 2)).astype(np.float32)
    reference[1, 7] = -9
    value = reference.astype(np.float64)
    value.flat[place] += 0.5
    assert relative_difference(value, reference) == pytest.approx(0.5 / 9)
    assert relative_difference(np.asfortranarray(value), reference) == pytest.approx(0.5 / 9)
    assert relative_difference(value[:, ::-1], reference[:, ::-1]) == pytest.approx(0.5 / 9)
    value.flat[place] = np.nan
    assert relative_difference(value, reference) == np.inf


@pytest.mark.parametrize("network", [MODEL, "module"])
def test_where_kernels_are_computed(network: object, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if network == "module":
        network = torch.nn.Linear(4, 3).double()
    asked: list[object] = []
    engine = type(backends.get("torch"))
    prepare = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda self, job, x: asked.append(job.device) or prepare(self, job, x))
    for device in ("cpu", torch.device("cpu")):
        report = ub.check(network, X, backends="torch,reference", device=device)
        assert report.ok
        assert report.device == "cpu"
        assert "kernels on cpu" in str(report)
    assert set(asked) == {"cpu"}
    asked.clear()
    for device, words in (("gpu", "cpu, cuda, mps"), (3, "device=3"), ("cuda:77", "on this machine")):
        with pytest.raises(errors.OptionError, match=words):
            ub.check(network, X, backends="torch,reference", device=device)
    assert not asked  # before anything was computed


def test_a_device_that_no_engine_knows() -> None:
    with pytest.raises(errors.OptionError, match="use backend='torch'"):
        ub.check(MODEL, X, backends="julia,reference", device="cuda")


@pytest.mark.parametrize("network", [MODEL, "module"])
def test_a_line_says_what_is_computed(network: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if network == "module":
        network = pytest.importorskip("torch").nn.Linear(4, 3).double()
    said: list[str] = []
    monkeypatch.setattr(Progress, "update", lambda self, task, description: said.append(description))
    ub.check(network, X, backends="torch,reference")
    assert not said
    ub.check(network, X, backends="torch,reference", progress=True)
    assert any("reference" in step for step in said)
    assert any("kernels" in step for step in said)
    with pytest.raises(errors.OptionError, match="progress='yes'"):
        ub.check(network, X, backends="torch,reference", progress="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", ["diagonal", [1, 0]])
def test_eigenvalues_are_those_of_a_matrix(outputs: object) -> None:
    with pytest.raises(errors.OutputsError, match="keeps the outputs apart"):
        ub.check(MODEL, X, backends="torch,reference", outputs=outputs)  # type: ignore[arg-type]


class Attention(torch.nn.Module):
    """Attention: a key's bias adds the same to all scores of a query, so that nothing depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x)).mean(1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_block_that_is_zero_but_for_rounding_is_said_and_differs_by_nothing(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(dtype)
    graph = ub.from_torch(Attention().to(getattr(torch, dtype)), x)
    report = ub.check(graph, x, backends="torch,reference")
    assert report.vanishing == ("jacobian key.bias",)
    assert "jacobian key.bias is zero but for rounding" in str(report)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("bias", "found"), [(0.0, {}), (1e-17, {"jacobian a.bias": 4.0}), (1e-13, {}), (float("nan"), {})]
)
def test_what_is_zero_but_for_rounding_is_so_beside_its_own_module(bias: float, found: dict[str, float]) -> None:
    first = {"jacobian a.weight": np.array([2.0, -4.0]), "jacobian b.weight": np.array([1e9]), "outputs": np.ones(1)}
    second = {**first, "jacobian a.bias": np.array([0.0])}
    assert vanishing({**first, "jacobian a.bias": np.array([bias])}, second) == found
    assert vanishing({"jacobian a.bias": np.array([bias])}, second) == {}  # by itself it has no scale
