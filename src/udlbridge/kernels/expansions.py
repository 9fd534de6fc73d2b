"""A network as a polynomial of its parameters: linearised, or expanded further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from udlbridge import backends
from udlbridge.backends.engine import Engine
from udlbridge.displays import Displayed, Row
from udlbridge.networks.graphs.graph import Graph
from udlbridge.networks.inputs import check_model, checked_samples, output_size
from udlbridge.networks.model import Model
from udlbridge.options import checked_count
from udlbridge.words import EngineWord


@dataclass(frozen=True, repr=False)
class TaylorExpansion(Displayed):
    """The Taylor polynomial of a network in its parameters theta, around those that `model` has, theta_0.

    Of degree 1: f(x; theta_0) + J(x) (theta - theta_0), J being the Jacobian at theta_0. Its NTK is that of `model`,
    wherever theta is.

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> moved = model.with_params({name: value + 0.01 for name, value in model.params.items()})
        >>> expansion = ub.taylor_expand(model, 2)
        >>> bool(np.allclose(expansion.outputs(moved, np.eye(2)), ub.outputs(moved, np.eye(2)), atol=1e-4))
        True
    """

    model: Model | Graph
    degree: int

    def __str__(self) -> str:
        words = {0: "constant", 1: "linear"}.get(self.degree, f"of degree {self.degree}")
        return f"TaylorExpansion, {words} in the parameters, of\n{self.model!r}"

    def headline(self) -> str:
        """The degree, and the network."""
        return " ".join(repr(self).splitlines()[:2])

    def as_rows(self) -> Sequence[Row]:
        """The rows of the network."""
        return self.model.as_rows()

    def outputs(
        self, at: Model | Graph | Mapping[str, np.ndarray], x: np.ndarray, *, backend: EngineWord | None = None
    ) -> Float[np.ndarray, "n outputs"]:
        """The polynomial's value at other parameters.

        Args:
            at: theta: a model of the same layers, the same graph, or arrays by name, all of them.
            x: samples (n, *D), of the model's dtype.
            backend: as for `udlbridge.outputs`; degrees above 1 need an engine with repeated forward derivatives.

        Raises:
            ParameterError: `at` has other parameters than the model.
            OptionError: a degree above 1 on an engine that has none.
            InputError, ShapeError, DTypeError: what is wrong with `x`.
        """
        batch = checked_samples(self.model, x)
        output_size(self.model, batch.shape[1:])
        other = self.model.with_params(at.params if isinstance(at, Model | Graph) else at)
        name = backends.checked_name(backends.default_name() if backend is None else backend)
        backends.check_ability(f"a Taylor polynomial of degree {self.degree}", name, self._computes)
        return backends.get(name).expand(self.model, batch, moved(self.model, other.params), self.degree)

    def _computes(self, engine: Engine) -> bool:
        return engine.taylor_degree is None or self.degree <= engine.taylor_degree


def taylor_expand(model: Model | Graph, degree: int) -> TaylorExpansion:
    """The Taylor polynomial of a network in its parameters, around its own, of a degree from 0 on.

    What is taken is sum_k d^k f(theta_0 + t (theta - theta_0)) / dt^k / k! at t = 0, by repeated forward derivatives;
    no derivative tensor is formed. At a kink (relu at 0) second derivatives are 0.

    Raises:
        OptionError: not a Model or Graph, or a degree that is not a whole number of at least 0.

    Examples:
        >>> ub.taylor_expand(ub.Model([ub.Dense(2, 3, "tanh")]), 3).degree
        3
    """
    if not isinstance(model, Graph):
        check_model(model)
    return TaylorExpansion(model, checked_count("degree", degree, 0))


def linearize(model: Model | Graph) -> TaylorExpansion:
    """The network linearised in its parameters: `taylor_expand` of degree 1, which every engine has.

    `udlbridge.train(model, x, y, linearized=True)` trains it; `udlbridge.predict.gradient_descent` says where it goes.

    Raises:
        OptionError: not a Model or Graph.

    Source: Lee et al., Wide neural networks of any depth evolve as linear models under gradient descent (2019).

    Examples:
        >>> model = ub.Model([ub.Dense(2, 3, "tanh"), ub.Dense(3, 2)], dtype="float64")
        >>> bool(np.allclose(ub.linearize(model).outputs(model, np.eye(2)), ub.outputs(model, np.eye(2))))
        True
    """
    return taylor_expand(model, 1)


def moved(model: Model | Graph, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """theta - theta_0, by name."""
    # NumPy makes a number of an array without axes.
    return {name: np.asarray(params[name] - start) for name, start in model.params.items()}
