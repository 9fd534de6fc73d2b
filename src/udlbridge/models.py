"""The networks of the source notebooks, by name."""

from __future__ import annotations

import numpy as np

from udlbridge.layers import Dense, Softmax
from udlbridge.model import Model

NOTEBOOK_POINTS = np.array([[0.5852378, 0.62436277], [0.0976659, 0.55464536]], dtype=np.float32)
"""The two fixed data points of the notebook's first method, (2, 2)."""


def three_layer_sigmoid(seed: int = 0, dtype: str = "float32") -> Model:
    """The Flux notebook's `model_3LS`: 784-60-60-10, a sigmoid on every layer, then softmax. P = 51,370."""
    layers = [Dense(784, 60, "sigmoid"), Dense(60, 60, "sigmoid"), Dense(60, 10, "sigmoid"), Softmax()]
    return Model(layers, seed=seed, dtype=dtype)


def notebook_method1(dtype: str = "float32") -> Model:
    """The Flux notebook's fixed network: 2-2-1, linear, every weight and bias one. P = 9."""
    model = Model([Dense(2, 2), Dense(2, 1)], dtype=dtype)
    return model.with_params({name: np.ones_like(value) for name, value in model.params.items()})


def hidden_relu(width: int = 2000, n_classes: int = 2, seed: int = 0, dtype: str = "float32") -> Model:
    """The alignment notebook's network: 784 - `width` ReLU - `n_classes`, linear readout."""
    return Model([Dense(784, width, "relu"), Dense(width, n_classes)], seed=seed, dtype=dtype)
