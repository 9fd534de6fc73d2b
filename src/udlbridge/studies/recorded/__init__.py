"""Results of real Flux runs of the notebook's two networks, to compare with: weights, outputs, kernel of output 0.

They were made with Julia 1.10.2, Flux 0.16.9, Zygote 0.7.12 and NNlib 0.9.36 in float32. The inputs are the notebook's
two points and the first ten MNIST training images.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float

from udlbridge.networks.model import Model
from udlbridge.networks.models import notebook_method1, three_layer_sigmoid


@dataclass(frozen=True)
class Recording:
    """One recorded run: the network with its weights, and what Flux computed."""

    model: Model
    kernel: Float[np.ndarray, "n n"]
    outputs: Float[np.ndarray, "n outputs"]
    made_with: dict[str, Any]


def flux(name: str) -> Recording:
    """The recording called "notebook_method1" or "mnist_3ls"."""
    template = {"notebook_method1": notebook_method1(), "mnist_3ls": three_layer_sigmoid()}[name]
    with (
        resources.files("udlbridge.studies.recorded").joinpath(f"{name}.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        params = {key.removeprefix("param:"): arrays[key] for key in arrays.files if key.startswith("param:")}
        made_with = json.loads(str(arrays["spec"]))["made_with"]
        return Recording(template.with_params(params), arrays["kernel"], arrays["outputs"], made_with)
