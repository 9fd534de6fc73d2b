"""Every container of numbers through every public function that takes arrays: the same result, or an error of ours."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import udlbridge as ub
from udlbridge import estimators, infinite, predict
from udlbridge.errors import UDLBridgeError
from udlbridge.udl.expressions import constant, total

pytestmark = pytest.mark.usefixtures("untyped")

Container = Callable[[np.ndarray], Any]


class Other:
    """An array of another library, which NumPy can read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype=dtype)


class Elsewhere:
    """An array of another library, on a device from where NumPy cannot read it."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype = array.shape, array.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("implicit conversion is not allowed")

    def __getitem__(self, key: Any) -> Elsewhere:
        return self


def frame(array: np.ndarray) -> Any:
    return pd.Series(array) if array.ndim == 1 else pd.DataFrame(array.copy()) if array.ndim == 2 else None


TAKEN: dict[str, Container] = {
    "list": lambda a: a.tolist(),
    "tuple of arrays": lambda a: tuple(a) if a.ndim > 1 else tuple(a.tolist()),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "columns first": np.asfortranarray,
    "read-only": lambda a: np.frombuffer(a.tobytes(), dtype=a.dtype).reshape(a.shape),
    "matrix": lambda a: np.asmatrix(a) if a.ndim == 2 else a,
    "tensor": lambda a: torch.tensor(a),
    "leaf": lambda a: torch.tensor(a, requires_grad=a.dtype.kind == "f"),
    "tensors in a list": lambda a: list(torch.tensor(a)),
    "sparse tensor": lambda a: torch.tensor(a).to_sparse(),
    "frame": frame,
    "other library": Other,
}
"""What means the same numbers everywhere; None where there is no such container of an array."""

SPARSE: dict[str, Container] = {
    "sparse rows": lambda a: scipy.sparse.csr_matrix(a) if a.ndim == 2 else None,
    "sparse array": lambda a: scipy.sparse.coo_array(a) if a.ndim == 2 else None,
}
"""What is made dense, but not in the place of a kernel."""

REFUSED: dict[str, Container] = {
    "masked": lambda a: np.ma.array(a, mask=np.arange(a.size).reshape(a.shape) == 0),
    "masked nowhere": np.ma.array,
    "masked row": lambda a: [np.ma.array(a[0]), *a[1:]] if a.ndim > 1 else [np.ma.masked, *a[1:].tolist()],
    "objects": lambda a: a.astype(object),
    "None inside": lambda a: [None, *a.tolist()[1:]],
    "ragged": lambda a: [[1.0, 2.0], *([0.0] for _ in a[1:])],
    "words": lambda a: np.full(a.shape, "a"),
    "word": lambda a: "abc",
    "dates": lambda a: np.full(a.shape, "2020-01-01", dtype="M8[D]"),
    "complex": lambda a: a + 1j,
    "bfloat16": lambda a: torch.tensor(a).to(torch.bfloat16),
    "no numbers": lambda a: torch.empty(a.shape, dtype=torch.tensor(a).dtype, device="meta"),
    "frame of objects": lambda a: pd.DataFrame({"x": ["a"] * len(a)}),
    "frame with gaps": lambda a: pd.DataFrame({"x": pd.array([None, *range(1, len(a))], dtype="Int64")}),
    "elsewhere": Elsewhere,
    "generator": iter,
    "dict": lambda a: dict(enumerate(a)),
    "set": lambda a: set(a.ravel().tolist()),
    "function": lambda a: len,
}
"""What is an array of numbers nowhere."""

RNG = np.random.default_rng(0)
MODEL = ub.Model([ub.Dense(3, 4, "tanh"), ub.Dense(4, 2)], seed=1, dtype="float64")
NARROW = MODEL.astype("float32")
TOKENS = ub.Model([ub.Embedding(5, 2), ub.Flatten(), ub.Dense(6, 2)], seed=1, dtype="float64")
MODULE = ub.to_torch(MODEL)
GRAPH = ub.Graph(
    [ub.Node("y", "linear", ("x", "0.weight", "0.bias"))],
    "y",
    params={name: MODEL.params[name] for name in ("0.weight", "0.bias")},
    sample_shape=(3,),
)
X, X2, X_TEST = RNG.standard_normal((6, 3)), RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3))
LABELS, SIGNS, ONE_HOT = np.arange(6) % 2, np.array([1, -1, 1, -1, 1, 1]), np.eye(2)[np.arange(6) % 2]
TARGETS, VECTOR = RNG.standard_normal((6, 2)), RNG.standard_normal(6)
K = X @ X.T + 0.1 * np.eye(6)
K2 = K + np.outer(VECTOR, VECTOR)
EXPANSION = ub.taylor_expand(MODEL, 2)
OPERATOR = ub.ntk_operator(MODEL, X, backend="reference")
PARAMETERS = np.concatenate([value.ravel() for value in MODEL.params.values()])
SPEC = json.dumps(MODEL.spec())
NAMES = iter(f"store{number}" for number in itertools.count())
BY_HAND = {"backend": "reference"}
QUIET = {"backend": "reference", "progress": False}


def trained(x: Any = X, y: Any = LABELS, probe: Any = None, loss: Any = "cross_entropy", **options: Any) -> Any:
    callbacks = [] if probe is None else [probe]
    run = ub.train(MODEL, x, y, epochs=1, batch_size=4, callbacks=callbacks, loss=loss, **options, **QUIET)
    return run.model, run.errors[-1].validation, run.to_dict()["records"]


def probe(x: Any = X, target: Any = K) -> Any:
    return ub.Probe(x, every=1, quantities=("ntk", "ntk_alignment"), target=target)


def with_weight(weight: Any, name: str = "0.weight") -> dict[str, Any]:
    return {**MODEL.params, name: weight}


def store(folder: Path, x: Any = X) -> ub.KernelStore:
    return ub.compute_kernel(MODEL, x, folder / next(NAMES), **QUIET)


def appended(folder: Path, x: Any) -> Any:
    kernel = store(folder)
    kernel.append(x, progress=False)
    return kernel


def linearized(**given: Any) -> Any:
    options = {"x": X, "y": TARGETS, "widths": (2, 3), "steps": 1, "draws": 1, "engines": ["reference"]}
    return ub.study_linearization(MODEL, **(options | given)).to_dict()


def studied(x: Any = X, y: Any = LABELS, x_test: Any = X2, y_test: Any = LABELS[:4]) -> Any:
    study = ub.study_alignment((x, y), (x_test, y_test), backends=["reference"], epochs=1, model=MODEL, progress=False)
    return study.to_dict()["runs"][0]["epochs"]


def likelihoods(f: Any = TARGETS, y: Any = TARGETS + 1) -> Any:
    arguments = (ub.losses.Gaussian(), f, y)
    functions = ("negative_log_likelihood", "negative_log_likelihood_gradient", "likelihood")
    found = [getattr(ub.losses, name)(*arguments, **BY_HAND) for name in functions]
    return [*found, ub.losses.sum_of_squares(f, y, **BY_HAND)]


def formula(constant: Any) -> Any:
    return ub.Function(lambda p: ub.expressions.total(p * constant), **BY_HAND).value(VECTOR)


def after_descent(**given: Any) -> Any:
    options = {"f_train": TARGETS / 2, "f_test": TARGETS[:4], "k_test": K[:4]} | given
    return predict.gradient_descent(K, TARGETS, learning_rate=0.01, diag_reg=0.1).after(3, **options).test


def posterior(k_test: Any = K[:4], k_test_test: Any = K[:4, :4], y: Any = TARGETS) -> Any:
    found = predict.posterior(K, k_test, k_test_test, y, diag_reg=0.1)
    return [found.mean, found.covariance]


def ensemble(k_test: Any = K[:4], k_test_test: Any = K[:4, :4], y: Any = TARGETS, **ntks: Any) -> Any:
    ntks = {"ntk_train": K2, "ntk_test": K2[:4], "t": 1.0} | ntks
    return predict.infinite_ensemble(K, k_test, k_test_test, y, diag_reg=0.1, **ntks).mean


def at(function: Any, vector: Any = PARAMETERS) -> Any:
    return [function.value(vector), function.gradient(vector)]


def squares(f: Any) -> Any:
    return ub.expressions.total(f**2)


def close(first: Any, second: Any) -> str:
    """Whether the assertion holds, since it gives nothing else."""
    try:
        ub.testing.assert_kernels_close(first, second)
    except AssertionError:
        return "apart"
    return "close"


def flow(k: Any = K, y: Any = TARGETS, f: Any = TARGETS / 2, k_test: Any = K[:4]) -> Any:
    found = predict.gradient_flow(k, y, diag_reg=0.1).at(2.0, f_train=f, k_test=k_test)
    return [found.train, found.test]


OPTIMISE = ub.Function(lambda p: ub.expressions.total(p**2), **BY_HAND)

# By name: a function of one array in any container (and of a folder, where it is to write), the array, and whether it
# stands for a kernel.
SAMPLES: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "outputs": (lambda x: ub.outputs(MODEL, x, **BY_HAND), X),
    "outputs in float32": (lambda x: ub.outputs(NARROW, x, **BY_HAND), X.astype(np.float32)),
    "outputs in torch": (lambda x: ub.outputs(MODEL, x, backend="torch"), X),
    "outputs of tokens": (lambda x: ub.outputs(TOKENS, x, **BY_HAND), np.arange(18).reshape(6, 3) % 5),
    "jacobian": (lambda x: ub.jacobian(MODEL, x, **BY_HAND), X),
    "input_jacobian": (lambda x: ub.input_jacobian(MODEL, x, **BY_HAND), X),
    "input_hessian": (lambda x: ub.input_hessian(MODEL, x, **BY_HAND), X),
    "ntk x": (lambda x: ub.ntk(MODEL, x, **BY_HAND), X),
    "ntk x2": (lambda x: ub.ntk(MODEL, X, x, **BY_HAND), X2),
    "layer_kernels x": (lambda x: ub.layer_kernels(MODEL, x, **BY_HAND), X),
    "layer_kernels x2": (lambda x: ub.layer_kernels(MODEL, X, x, **BY_HAND), X2),
    "ntk of a module, x": (lambda x: ub.ntk(MODULE, x), X),
    "ntk of a module, x2": (lambda x: ub.ntk(MODULE, X, x), X2),
    "ntk_operator": (lambda x: ub.ntk_operator(MODEL, x, **BY_HAND) @ VECTOR, X),
    "spectrum of a model": (lambda x: ub.spectrum(MODEL, x=x, **BY_HAND).eigenvalues, X),
    "features": (lambda x: ub.features(MODEL, x, **BY_HAND), X),
    "feature_kernel": (lambda x: np.asarray(ub.feature_kernel(MODEL, x, **BY_HAND)), X),
    "layer_alignments x": (lambda x: ub.layer_alignments(MODEL, x, K, **BY_HAND), X),
    "signal_report x": (lambda x: ub.signal_report(MODEL, x, **BY_HAND).to_dict(), X),
    "signal_report y": (lambda y: ub.signal_report(MODEL, X, y, **BY_HAND).to_dict(), TARGETS),
    "check": (lambda x: ub.check(MODEL, x, backends=["torch", "reference"]).ok, X),
    "assert_consistent": (lambda x: ub.testing.assert_consistent(MODEL, x, backends=["torch", "reference"]).ok, X),
    "compare_models": (lambda x: ub.compare_models(MODEL, MODEL, x, **BY_HAND).to_dict(), X),
    "train x": (lambda x: trained(x=x), X),
    "train y, classes": (lambda y: trained(y=y), LABELS),
    "train y, one-hot": (lambda y: trained(y=y), ONE_HOT),
    "train y, values": (lambda y: trained(y=y, loss="mse"), TARGETS),
    "train orders": (lambda orders: trained(orders=orders), np.array([[3, 1, 2, 0, 5, 4]])),
    "train validation x": (lambda x: trained(validation=(x, LABELS[:4])), X2),
    "train validation y": (lambda y: trained(validation=(X2, y)), LABELS[:4]),
    "Probe x": (lambda x: trained(probe=probe(x=x)), X),
    "loss_gradient x": (lambda x: ub.loss_gradient(MODEL, x, LABELS, **BY_HAND), X),
    "loss_gradient y": (lambda y: ub.loss_gradient(MODEL, X, y, **BY_HAND), LABELS),
    "sobolev": (
        lambda s: ub.loss_gradient(MODEL, X, TARGETS, loss=ub.losses.sobolev(s), **BY_HAND),
        RNG.standard_normal((6, 2, 3)),
    ),
    "similarity_map": (lambda x: ub.similarity_map(MODEL, MODEL, x, **BY_HAND).values, X),
    "study_linearization x": (lambda x: linearized(x=x), X),
    "study_linearization y": (lambda y: linearized(y=y), TARGETS),
    "study_alignment x": (lambda x: studied(x=x), X),
    "study_alignment y": (lambda y: studied(y=y), LABELS),
    "study_alignment x_test": (lambda x: studied(x_test=x), X2),
    "study_alignment y_test": (lambda y: studied(y_test=y), LABELS[:4]),
    "label_kernel of signs": (lambda y: np.asarray(ub.label_kernel(y)), SIGNS),
    "label_kernel of classes": (lambda y: np.asarray(ub.label_kernel(y)), ONE_HOT),
    "FactoredKernel": (lambda phi: np.asarray(ub.FactoredKernel(phi)), X),
    "FactoredKernel @": (lambda v: ub.FactoredKernel(X) @ v, VECTOR),
    "NTKOperator @": (lambda v: OPERATOR @ v, VECTOR),
    "NTKOperator @ block": (lambda v: OPERATOR @ v, TARGETS),
    "NTKOperator.matvec": (lambda v: OPERATOR.matvec(v), VECTOR),
    "NTKOperator.matmat": (lambda v: OPERATOR.matmat(v), TARGETS),
    "Model": (lambda w: ub.Model(MODEL.layers, with_weight(w)), MODEL.params["0.weight"]),
    "Model, a vector": (lambda b: ub.Model(MODEL.layers, with_weight(b, "0.bias")), MODEL.params["0.bias"]),
    "Graph": (
        lambda w: ub.Graph(GRAPH.nodes, "y", params={**GRAPH.params, "0.weight": w}, sample_shape=(3,)),
        MODEL.params["0.weight"],
    ),
    "with_params of a graph": (lambda w: GRAPH.with_params({**GRAPH.params, "0.weight": w}), MODEL.params["0.weight"]),
    "outputs of a graph": (lambda x: ub.outputs(GRAPH, x, **BY_HAND), X),
    "from_torch": (lambda x: ub.from_torch(MODULE, x), X),
    "with_params": (lambda w: MODEL.with_params(with_weight(w)), MODEL.params["0.weight"]),
    "from_spec": (lambda w: ub.Model.from_spec(SPEC, with_weight(w)), MODEL.params["0.weight"]),
    "losses f": (lambda f: likelihoods(f=f), TARGETS),
    "losses y": (lambda y: likelihoods(y=y), TARGETS + 1),
    "Function": (lambda x: at(OPTIMISE, x), VECTOR),
    "a constant of a formula": (formula, VECTOR),
    "descend": (lambda p: ub.optimize.descend(OPTIMISE, p, steps=2, step_size=0.1).points, VECTOR),
    "descend_by_line_search": (lambda p: ub.optimize.descend_by_line_search(OPTIMISE, p, steps=2).points, VECTOR),
    "descend_stochastically": (
        lambda p: (
            ub.optimize.descend_stochastically(
                lambda rows: OPTIMISE, p, n=3, batch_size=1, steps=2, step_size=0.1
            ).points
        ),
        VECTOR,
    ),
    "ParameterVector": (lambda v: ub.optimize.ParameterVector(MODEL).at(v), PARAMETERS),
    "ModelFunction": (lambda v: at(ub.optimize.ModelFunction(MODEL, X, squares, **BY_HAND), v), PARAMETERS),
    "ModelFunction x": (lambda x: at(ub.optimize.ModelFunction(MODEL, x, squares, **BY_HAND)), X),
    "LossFunction": (lambda v: at(ub.optimize.LossFunction(MODEL, X, LABELS, **BY_HAND), v), PARAMETERS),
    "LossFunction x": (lambda x: at(ub.optimize.LossFunction(MODEL, x, LABELS, **BY_HAND)), X),
    "LossFunction y": (lambda y: at(ub.optimize.LossFunction(MODEL, X, y, **BY_HAND)), LABELS),
    "decoding": (
        lambda f: [ub.decoding.greedy(f), ub.decoding.kth_most_likely(f, 1), ub.decoding.nucleus_tokens(f, 0.5)],
        VECTOR,
    ),
    "ranking": (lambda f: ub.decoding.ranking(f), VECTOR),
    "decoding by chance": (
        lambda f: [
            ub.decoding.sample(f, np.random.default_rng(0)),
            ub.decoding.top_k(f, 3, np.random.default_rng(0)),
            ub.decoding.nucleus(f, 0.5, np.random.default_rng(0)),
            ub.decoding.top_k(f, 3, np.random.RandomState(0)),
            ub.decoding.nucleus(f, 0.5, np.random.RandomState(0)),
        ],
        VECTOR,
    ),
    "digits": (lambda d: ub.data.mnist("train", n=5, digits=d), np.array([1, 7])),
    "gradient_flow y": (lambda y: flow(y=y), TARGETS),
    "gradient_flow f": (lambda f: flow(f=f), TARGETS / 2),
    "gradient_descent y": (
        lambda y: predict.gradient_descent(K, y, learning_rate=0.1, diag_reg=0.1).after(3).train,
        TARGETS,
    ),
    "gradient_flow t": (lambda t: predict.gradient_flow(K, TARGETS, diag_reg=0.1).at(t).train, np.array([0.5, 1.0])),
    "gradient_descent f_test": (lambda f: after_descent(f_test=f), TARGETS[:4]),
    "posterior y": (lambda y: posterior(y=y), TARGETS),
    "ensemble y": (lambda y: ensemble(y=y), TARGETS),
    "taylor_expand x": (lambda x: EXPANSION.outputs(MODEL, x), X),
    "taylor_expand at": (lambda w: EXPANSION.outputs(with_weight(w), X), MODEL.params["0.weight"]),
    "solve y": (lambda y: predict.solve(K, y, diag_reg=0.1, progress=False).coefficients, TARGETS),
    "infinite x": (lambda x: infinite.kernels(MODEL, x, w_std=1.5, b_std=0.1).ntk, X),
    "infinite x2": (lambda x: infinite.kernels(MODEL, X, x, w_std=1.5, b_std=0.1).ntk, X2),
    "converges x": (lambda x: ub.converges(MODEL, widths=(4, 8), draws=1, x=x, engines=["reference"]).ntk, X),
    "network_kernel x1": (lambda x: estimators.network_kernel(x), X),
    "network_kernel x2": (lambda x: estimators.network_kernel(X, x), X2),
    "a constant": (lambda c: ub.Function(lambda p: total(p * constant(c)), **BY_HAND).value(VECTOR), VECTOR),
}
KERNELS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "spectrum": (lambda k: ub.spectrum(k).eigenvalues, K),
    "spectrum by products": (lambda k: ub.spectrum(k, 2, dense_limit=0, seed=0).eigenvalues, K),
    "repair": (lambda k: ub.repair(k).kernel, K - 0.2 * np.eye(6)),
    "centre": (ub.centre, K),
    "alignment k1": (lambda k: ub.alignment(k, K2), K),
    "alignment k2": (lambda k: ub.alignment(K2, k), K),
    "alignment_interval k1": (lambda k: str(ub.alignment_interval(k, K2)), K),
    "alignment_interval k2": (lambda k: str(ub.alignment_interval(K2, k)), K),
    "alignment_test k1": (lambda k: str(ub.alignment_test(k, K2, permutations=5, seed=0)), K),
    "alignment_test k2": (lambda k: str(ub.alignment_test(K2, k, permutations=5, seed=0)), K),
    "trace": (lambda k: ub.trace(k).value, K),
    "frobenius_norm": (lambda k: ub.frobenius_norm(k).value, K),
    "effective_rank": (lambda k: ub.effective_rank(k).value, K),
    "log_det": (lambda k: ub.log_det(k).value, K),
    "spectral_density": (lambda k: ub.spectral_density(k, probes=3, steps=5, seed=0).density, K),
    "alignment_matrix": (lambda k: ub.alignment_matrix({"first": k, "second": K2}), K),
    "layer_alignments target": (lambda k: ub.layer_alignments(MODEL, X, k, **BY_HAND), K),
    "Probe target": (lambda k: trained(probe=probe(target=k)), K),
    "assert_kernels_close k1": (lambda k: close(k, K), K),
    "assert_kernels_close k2": (lambda k: close(K, k), K),
    "assert_psd": (lambda k: ub.testing.assert_psd(k).eigenvalues, K),
    "gradient_flow k_train": (lambda k: flow(k=k), K),
    "gradient_flow k_test": (lambda k: flow(k_test=k), K[:4]),
    "max_learning_rate": (predict.max_learning_rate, K),
    "solve": (lambda k: predict.solve(k, TARGETS, diag_reg=0.1, progress=False).coefficients, K),
    "infinite_ensemble": (
        lambda k: predict.infinite_ensemble(k, K[:4], K[:4, :4], TARGETS, diag_reg=0.1).mean,
        K,
    ),
    "gradient_descent k_test": (lambda k: after_descent(k_test=k), K[:4]),
    "posterior k_test": (lambda k: posterior(k_test=k), K[:4]),
    "posterior k_test_test": (lambda k: posterior(k_test_test=k), K[:4, :4]),
    "ensemble k_test": (lambda k: ensemble(k_test=k), K[:4]),
    "ensemble k_test_test": (lambda k: ensemble(k_test_test=k), K[:4, :4]),
    "ensemble ntk_train": (lambda k: ensemble(ntk_train=k), K2),
    "ensemble ntk_test": (lambda k: ensemble(ntk_test=k), K2[:4]),
    "posterior": (lambda k: predict.posterior(k, K[:4], K[:4, :4], TARGETS, diag_reg=0.1).mean, K),
}

DENSE_ANYWAY = {
    *("assert_kernels_close k1", "assert_kernels_close k2"),
    *("gradient_flow k_train", "gradient_flow k_test", "gradient_descent k_test"),
    *("posterior", "posterior k_test", "posterior k_test_test"),
    *("infinite_ensemble", "ensemble k_test", "ensemble k_test_test", "ensemble ntk_train", "ensemble ntk_test"),
}
"""Kernels that are an array in any case, so that sparse ones are made dense."""

ON_DISK: dict[str, tuple[Callable[[Path, Any], Any], np.ndarray]] = {
    "compute_kernel": (lambda folder, x: np.asarray(store(folder, x)), X),
    "infinite compute_kernel": (
        lambda folder, x: np.asarray(infinite.compute_kernel(MODEL, x, folder / next(NAMES), w_std=1.5, b_std=0.1)),
        X,
    ),
    "append": (lambda folder, x: np.asarray(appended(folder, x)), X2),
}


def same(found: Any, expected: Any) -> bool:
    """Whether two results are of the same kind and have the same numbers."""
    if isinstance(expected, np.ndarray):
        equal = np.allclose(found, expected, rtol=1e-12, atol=1e-13) and found.dtype == expected.dtype
        return isinstance(found, np.ndarray) and found.shape == expected.shape and found.dtype.isnative and equal
    if isinstance(expected, Mapping):
        return list(found) == list(expected) and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(itertools.starmap(same, zip(found, expected, strict=True)))
    return bool(found == pytest.approx(expected, rel=1e-12)) if isinstance(expected, float) else found == expected


def outcomes(call: Callable[[Any], Any], array: np.ndarray, containers: Mapping[str, Container]) -> Iterator[str]:
    """For each container, what was wrong with what came of it, if anything: "taken", "refused", or that in words."""
    expected = call(array)
    for name, contain in containers.items():
        given = contain(array)
        if given is None:
            continue
        try:
            found = call(given)
        except UDLBridgeError as error:
            helps = error.given and (error.allowed or error.remedy)
            yield f"{name}: refused" if helps else f"{name}: neither what is allowed nor what to do: {error}"
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {error}"
        else:
            yield f"{name}: taken" if same(found, expected) else f"{name}: another result"


SLOW = (
    "check",
    "assert_consistent",
    "compare_models",
    "study",
    "ntk of a module",
    "Probe",
    "train",
    "infinite",
    "converges",
    "from_torch",
)
"""What takes long, and so gets a few containers: as whatever stands beside it, it goes through the one door."""

FEW = {
    *("list", "big-endian", "leaf", "frame", "sparse rows"),
    *("masked", "None inside", "bfloat16", "elsewhere", "objects", "complex"),
}


def check_outcomes(call: Callable[[Any], Any], array: np.ndarray, *, sparse: bool, few: bool = False) -> None:
    for every, wanted in ((TAKEN, "taken"), (SPARSE, "taken" if sparse else "refused"), (REFUSED, "refused")):
        containers = {name: contain for name, contain in every.items() if not few or name in FEW}
        wrong = [outcome for outcome in outcomes(call, array, containers) if not outcome.endswith(f": {wanted}")]
        assert not wrong, f"these were to be {wanted}"


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_labels_and_vectors(name: str) -> None:
    call, array = SAMPLES[name]
    check_outcomes(call, array, sparse=True, few=name.startswith(SLOW))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str) -> None:
    call, array = KERNELS[name]
    check_outcomes(call, array, sparse=name in DENSE_ANYWAY, few=name.startswith(SLOW))


@pytest.mark.parametrize("name", ON_DISK)
def test_stores(name: str, tmp_path: Path) -> None:
    call, array = ON_DISK[name]
    check_outcomes(lambda value: call(tmp_path, value), array, sparse=True, few=True)


def test_a_store_that_is_open(tmp_path: Path) -> None:
    kernel = store(tmp_path)
    check_outcomes(lambda x: ub.KernelStore(kernel.path, x=x).shape, X, sparse=True)
    check_outcomes(lambda v: kernel @ v, VECTOR, sparse=True)
    check_outcomes(kernel.columns, np.array([3, 0, -1]), sparse=True)


def test_columns_of_a_store_at_infinite_width(tmp_path: Path) -> None:
    kernel = infinite.compute_kernel(MODEL, X, tmp_path / "store", w_std=1.5, b_std=0.1)
    check_outcomes(kernel.columns, np.array([3, 0, -1]), sparse=True, few=True)


def test_samples_that_a_summary_takes_the_shape_from() -> None:
    outcome = dict(
        line.split(": ", 1)
        for containers in (TAKEN, SPARSE, REFUSED)
        for line in outcomes(lambda x: str(MODEL.summary(x)), X, containers)
    )
    # Only the shape counts: what is of another dtype has one too.
    assert {name for name, what in outcome.items() if what != "refused"} == {*TAKEN, *SPARSE, "complex"}
    assert set(outcome.values()) == {"taken", "refused"}


PUBLIC = (
    *(ub, ub.data, ub.decoding, ub.estimators, ub.expressions, ub.infinite, ub.init, ub.losses, ub.models, ub.optimize),
    *(ub.predict, ub.testing),
)
NO_ARRAYS = {
    *("as_network", "from_gpt2"),  # a module
    "from_flux",  # a chain
    "plan",  # a network and shapes
    "generate",  # functions of tokens
    *("check_backend", "InfiniteStore"),  # an engine, an executor
}
"""Public functions whose types admit anything, but none of whose arguments is an array."""

BY_SCIKIT_LEARN = {"NTKClassifier", "NTKKernel", "NTKRidge"}
"""What takes arrays is checked by scikit-learn, whose own suite the estimators run through."""


def public_functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The functions and classes of a public module, but for errors, and for classes that are fields alone."""
    listed = getattr(module, "__all__", None)
    for name in dir(module) if listed is None else listed:
        value = getattr(module, name)
        own = listed is not None or getattr(value, "__module__", None) == module.__name__
        if not callable(value) or name.startswith("_") or not own:
            continue
        plain = isinstance(value, type) and (
            issubclass(value, BaseException | ub.networks.layers.Layer) or dataclasses.is_dataclass(value)
        )
        if not plain:
            yield name, value


def takes_anything(function: Any) -> bool:
    """Whether the types of the arguments admit an array."""
    parameters = inspect.signature(function).parameters.values()
    return any(re.search(r"ndarray|KernelLike|Float|Int\[|\bobject\b|\bAny\b", str(p.annotation)) for p in parameters)


def names_in(code: CodeType, above: tuple[CodeType, ...] = ()) -> Iterator[str]:
    """All names that a function uses, and that the functions of this file use which it calls."""
    if code in above:  # a method may have the name of a helper that calls it
        return
    for name in code.co_names:
        yield name
        helper = globals().get(name)
        if inspect.isfunction(helper) and helper.__module__ == __name__:
            yield from names_in(helper.__code__, (*above, code))
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from names_in(value, (*above, code))
        elif isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, str))


def test_every_public_function_that_takes_arrays_has_a_row() -> None:
    used = {"centre", "max_learning_rate"}  # rows themselves
    used |= {"KernelStore", "NTKOperator"}  # tested above, and made by `ntk_operator`
    used |= {"checked_observations"}  # what the functions of `losses` call
    for call, _ in (*SAMPLES.values(), *KERNELS.values(), *ON_DISK.values()):
        if inspect.isfunction(call) and call.__module__ == __name__:
            used |= set(names_in(call.__code__))
    found = {name for module in PUBLIC for name, value in public_functions(module) if takes_anything(value)}
    assert {"ntk", "Model", "FactoredKernel", "repair", "gradient_flow", "greedy", "constant"} <= found
    assert sorted(found - used - NO_ARRAYS - BY_SCIKIT_LEARN) == []
