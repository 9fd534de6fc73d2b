"""Functions that plain formulas have few digits of: near 0, and where squares are beyond the numbers that there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import udlbridge as ub
from helpers import assert_within_budget
from udlbridge import errors

torch = pytest.importorskip("torch")
nn = torch.nn

X = np.random.default_rng(0).normal(size=(6, 4))

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sinh": torch.sinh,
    "asinh": torch.asinh,
    "atanh": torch.atanh,
    "acosh": lambda h: torch.acosh(1.5 + h.abs()),
    "hypot": lambda h: torch.hypot(h, 2 * h + 1),
}


class Applied(nn.Module):
    """A function of a linear layer's numbers, scaled."""

    def __init__(self, function: Callable[[Any], Any], scale: float, back: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.function = nn.Linear(4, 3), function
        self.scale, self.back = scale, back

    def forward(self, x: Any) -> Any:
        """f(scale h) / scale, or times another number."""
        return self.function(self.scale * self.linear(x)) * self.back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 0.3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_their_digits_near_0(name: str, scale: float, dtype: str) -> None:
    """`from_torch` holds outputs and gradients against the module's own by itself."""
    module = Applied(FUNCTIONS[name], scale, 1 / scale).to(getattr(torch, dtype))
    x = X.astype(dtype)
    graph = ub.from_torch(module, x)
    expected = ub.ntk(module, x)
    for backend in ("torch", "reference"):
        assert_within_budget(ub.ntk(graph, x, backend=backend), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_hypotenuse_of_sides_whose_squares_are_beyond_all_numbers(dtype: str) -> None:
    scale = 1e25 if dtype == "float32" else 1e200
    module = Applied(lambda h: torch.hypot(h, h.flip(1)), scale, 1 / scale).to(getattr(torch, dtype))
    graph = ub.from_torch(module, X.astype(dtype))
    assert_within_budget(ub.ntk(graph, X.astype(dtype), backend="reference"), ub.ntk(module, X.astype(dtype)))


def test_the_logarithm_keeps_its_digits_everywhere() -> None:
    values = torch.tensor([0.0, -0.0, 1e-300, -0.75, 0.5, -0.5, 3.0, 1e9], dtype=torch.float64)
    only = Values(values)
    graph = ub.from_torch(only.double(), X[:2])
    expected = only(torch.tensor(X[:2])).detach().numpy()
    np.testing.assert_allclose(ub.outputs(graph, X[:2], backend="reference"), expected, rtol=1e-15)


class Values(nn.Module):
    """log(1 + v) of given numbers, at each sample."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, x: Any) -> Any:
        """(n, k)."""
        return torch.log1p(self.values) + 0 * x[:, :1]


def test_what_differs_by_rounding_is_said_to() -> None:
    module = Applied(lambda h: torch.erfc(2.2 + 0.01 * h), 1.0, 1.0)
    with pytest.raises(errors.ConversionError, match="in float64 they agree: it is rounding") as raised:
        ub.from_torch(module, X.astype(np.float32))
    assert "report" not in str(raised.value)
    assert "module.double()" in str(raised.value)
    assert ub.from_torch(module.double(), X) is not None
    with pytest.raises(errors.ConversionError, match="where large numbers cancel in forward, this is rounding"):
        ub.from_torch(Applied(lambda h: torch.erfc(4 + 0.01 * h), 1.0, 1.0).double(), X)


def test_outputs_that_are_not_finite_are_no_fault_of_the_translation() -> None:
    module = Applied(lambda h: (1e30 * h) ** 2, 1.0, 1.0)
    with pytest.raises(errors.ConversionError, match="the outputs of Applied are not finite for these samples"):
        ub.from_torch(module, X.astype(np.float32))
