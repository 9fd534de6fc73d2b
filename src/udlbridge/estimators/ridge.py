"""Ridge regression and classification with the kernel of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from udlbridge.errors import OptionError
from udlbridge.estimators.pairwise import Network, is_network, network_kernel
from udlbridge.options import brief, checked_positive
from udlbridge.predict.systems import training_system
from udlbridge.words import EngineWord


class _KernelRidge(BaseEstimator):  # type: ignore[misc]
    """What both estimators share: the kernel, and the solution of (K + alpha mean(diag K) I) c = y."""

    def __init__(
        self,
        alpha: float = 1e-3,
        *,
        network: Network = "infinite",
        depth: int = 2,
        activation: str = "relu",
        w_std: float = 2.0**0.5,
        b_std: float = 0.1,
        backend: EngineWord | None = None,
    ) -> None:
        self.alpha = alpha
        self.network = network
        self.depth = depth
        self.activation = activation
        self.w_std = w_std
        self.b_std = b_std
        self.backend = backend

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # A model of images or tokens says itself what its samples are.
        tags.input_tags.three_d_array = self.network != "infinite"
        return tags

    def _kernel(self, x1: np.ndarray, x2: np.ndarray | None = None) -> Float[np.ndarray, "n m"]:
        return network_kernel(
            x1, x2, network=self.network, depth=self.depth, activation=self.activation, w_std=self.w_std,
            b_std=self.b_std, backend=self.backend,
        )  # fmt: skip

    def _solve(self, x: np.ndarray, targets: np.ndarray) -> None:
        alpha: Any = self.alpha
        if is_network(alpha) or callable(alpha):
            raise OptionError(
                f"alpha={brief(alpha)}", allowed="a number; a network has a place of its own", remedy="say network="
            )
        alpha = checked_positive("alpha", alpha)  # before the kernel, which may take long
        system = training_system(self._kernel(x), targets, alpha)
        self.dual_coef_ = system.solve(system.columns(system.y))
        self.X_fit_ = x

    def _outputs(self, x: Any) -> Float[np.ndarray, "n outputs"]:
        check_is_fitted(self, "dual_coef_")
        samples = validate_data(self, x, reset=False, dtype="numeric", allow_nd=True)
        return self._kernel(samples, self.X_fit_) @ self.dual_coef_


class NTKRidge(MultiOutputMixin, RegressorMixin, _KernelRidge):  # type: ignore[misc]
    """Kernel ridge regression with the NTK of a network: what an infinitely wide one predicts, fully trained.

    Args:
        alpha: regularisation, relative to the mean diagonal of the kernel.
        network, depth, activation, w_std, b_std, backend: as for `network_kernel`.

    Attributes: `dual_coef_` (n, outputs), `X_fit_`, `n_features_in_`.

    Raises:
        OptionError: what is wrong with the options, when it is fitted.
        ValueError: what is wrong with the data, as scikit-learn says it.

    Source: Jacot, Gabriel, Hongler (2018); Saunders, Gammerman, Vovk (1998) for kernel ridge regression.
    """

    def fit(self, X: Any, y: Any) -> NTKRidge:
        """Fit to samples X (n, features) and targets y (n,) or (n, outputs). Raises as the class says."""
        samples, targets = validate_data(self, X, y, dtype="numeric", allow_nd=True, multi_output=True, y_numeric=True)
        self._flat = np.ndim(targets) == 1
        self._solve(samples, np.asarray(targets, dtype=np.float64))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Targets (m,) or (m, outputs) for samples X (m, features).

        Raises:
            ValueError: samples that scikit-learn refuses; its NotFittedError before `fit`.
        """
        found = self._outputs(X)
        return found[:, 0] if self._flat else found


class NTKClassifier(ClassifierMixin, _KernelRidge):  # type: ignore[misc]
    """Classification by kernel ridge regression on one-hot targets minus 1 / classes.

    Args:
        alpha, network, depth, activation, w_std, b_std, backend: as for `NTKRidge`.

    Attributes: `classes_`, `dual_coef_` (n, classes), `X_fit_`, `n_features_in_`.

    Raises:
        As `NTKRidge`; ValueError for a single class.

    Source: Lee et al. (2020), section 2, for the targets.
    """

    def fit(self, X: Any, y: Any) -> NTKClassifier:
        """Fit to samples X (n, features) and labels y (n,).

        Raises:
            OptionError: fewer than two classes.
            ValueError: what scikit-learn refuses: samples or labels that are not finite, or of the wrong shape.
        """
        samples, labels = validate_data(self, X, y, dtype="numeric", allow_nd=True)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise OptionError(
                f"the labels have one class, {self.classes_[0]!r}", allowed="two classes or more", remedy="add samples"
            )
        self._solve(samples, np.eye(len(self.classes_))[numbers] - 1 / len(self.classes_))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """A score (m, classes), or (m,) for the second of two classes; the largest decides. Raises as `predict`."""
        found = self._outputs(X)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict(self, X: Any) -> np.ndarray:
        """Labels (m,) for samples X (m, features).

        Raises:
            ValueError: samples that scikit-learn refuses; its NotFittedError before `fit`.
        """
        best = self._outputs(X).argmax(axis=1)
        return np.asarray(self.classes_[best])
