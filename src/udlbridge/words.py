"""The words that options take, as type checkers and editors read them.

Whatever comes is checked when it comes, by what the option belongs to, whose error says what is allowed; so these are
plain types when the program runs. A test holds each against the registry that it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

EngineName = Any
"""The name of an engine that was looked up, as by `backends.checked_name`: other packages have names of their own."""

if TYPE_CHECKING:
    EngineWord = Literal["torch", "julia", "reference"]
    OutputsWord = Literal["trace", "mean", "sum", "diagonal", "full"]
    MethodWord = Literal["auto", "structured", "plain"]
    StorageWord = Literal["float32", "float64", "float16", "bfloat16"]
    FloatWord = Literal["float32", "float64"]
    DtypeWord = FloatWord | np.dtype[Any] | type[np.float32] | type[np.float64]
    LossWord = Literal[
        "mse", "cross_entropy", "binary_cross_entropy", "nll",
        "MSELoss", "CrossEntropyLoss", "BCEWithLogitsLoss", "NLLLoss",
    ]  # fmt: skip
    OptimizerWord = Literal[
        "sgd", "momentum", "torch_momentum", "nesterov", "adam", "adamw", "rmsprop",
        "SGD", "Descent", "Momentum", "Nesterov", "Adam", "AdamW", "RMSprop", "RMSProp",
    ]  # fmt: skip
else:
    EngineWord = OutputsWord = MethodWord = StorageWord = LossWord = OptimizerWord = FloatWord = str
    DtypeWord = Any
