"""One Python API for the gradient kernels of neural networks, on Flux/Zygote in Julia, on PyTorch, and by hand.

Importing this package imports neither torch nor juliacall and starts nothing: names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from udlbridge import backends as backends
    from udlbridge import data as data
    from udlbridge import decoding as decoding
    from udlbridge import expressions as expressions
    from udlbridge import init as init
    from udlbridge import losses as losses
    from udlbridge import models as models
    from udlbridge import optimize as optimize
    from udlbridge import testing as testing
    from udlbridge.alignment_study import AlignmentStudy as AlignmentStudy
    from udlbridge.alignment_study import study_alignment as study_alignment
    from udlbridge.alignments import alignment as alignment
    from udlbridge.alignments import alignment_matrix as alignment_matrix
    from udlbridge.alignments import centre as centre
    from udlbridge.alignments import feature_kernel as feature_kernel
    from udlbridge.alignments import features as features
    from udlbridge.alignments import label_kernel as label_kernel
    from udlbridge.alignments import layer_alignments as layer_alignments
    from udlbridge.checking import CheckReport as CheckReport
    from udlbridge.checking import check as check
    from udlbridge.comparing import compare_models as compare_models
    from udlbridge.computing import KernelStore as KernelStore
    from udlbridge.computing import compute_kernel as compute_kernel
    from udlbridge.conversion import from_flux as from_flux
    from udlbridge.conversion import from_torch as from_torch
    from udlbridge.errors import JuliaUnavailable as JuliaUnavailable
    from udlbridge.errors import UDLBridgeError as UDLBridgeError
    from udlbridge.factored import FactoredKernel as FactoredKernel
    from udlbridge.function import Function as Function
    from udlbridge.kernel import input_hessian as input_hessian
    from udlbridge.kernel import input_jacobian as input_jacobian
    from udlbridge.kernel import jacobian as jacobian
    from udlbridge.kernel import ntk as ntk
    from udlbridge.kernel import outputs as outputs
    from udlbridge.layers import Activation as Activation
    from udlbridge.layers import BatchNorm as BatchNorm
    from udlbridge.layers import Conv1d as Conv1d
    from udlbridge.layers import Conv2d as Conv2d
    from udlbridge.layers import Dense as Dense
    from udlbridge.layers import Dropout as Dropout
    from udlbridge.layers import Embedding as Embedding
    from udlbridge.layers import Flatten as Flatten
    from udlbridge.layers import GlobalMeanPool as GlobalMeanPool
    from udlbridge.layers import GroupNorm as GroupNorm
    from udlbridge.layers import LayerNorm as LayerNorm
    from udlbridge.layers import LearnedPositions as LearnedPositions
    from udlbridge.layers import LogSoftmax as LogSoftmax
    from udlbridge.layers import MaxPool as MaxPool
    from udlbridge.layers import MeanPool as MeanPool
    from udlbridge.layers import Residual as Residual
    from udlbridge.layers import SelfAttention as SelfAttention
    from udlbridge.layers import SinusoidalPositions as SinusoidalPositions
    from udlbridge.layers import Softmax as Softmax
    from udlbridge.layers import Take as Take
    from udlbridge.model import Model as Model
    from udlbridge.operators import NTKOperator as NTKOperator
    from udlbridge.operators import ntk_operator as ntk_operator
    from udlbridge.planning import plan as plan
    from udlbridge.repairing import Repair as Repair
    from udlbridge.repairing import repair as repair
    from udlbridge.signals import SignalReport as SignalReport
    from udlbridge.signals import signal_report as signal_report
    from udlbridge.spectra import Spectrum as Spectrum
    from udlbridge.spectra import spectrum as spectrum
    from udlbridge.training.loop import loss_gradient as loss_gradient
    from udlbridge.training.loop import train as train
    from udlbridge.training.probes import Probe as Probe
    from udlbridge.training.runs import TrainingRun as TrainingRun

_HOME = {
    "Activation": "layers",
    "AlignmentStudy": "alignment_study",
    "BatchNorm": "layers",
    "CheckReport": "checking",
    "Conv1d": "layers",
    "Conv2d": "layers",
    "Dense": "layers",
    "Dropout": "layers",
    "Embedding": "layers",
    "FactoredKernel": "factored",
    "Flatten": "layers",
    "Function": "function",
    "GlobalMeanPool": "layers",
    "GroupNorm": "layers",
    "JuliaUnavailable": "errors",
    "KernelStore": "computing",
    "LayerNorm": "layers",
    "LearnedPositions": "layers",
    "LogSoftmax": "layers",
    "MaxPool": "layers",
    "MeanPool": "layers",
    "Model": "model",
    "Probe": "training.probes",
    "Residual": "layers",
    "SelfAttention": "layers",
    "SignalReport": "signals",
    "SinusoidalPositions": "layers",
    "NTKOperator": "operators",
    "Repair": "repairing",
    "Softmax": "layers",
    "Spectrum": "spectra",
    "Take": "layers",
    "TrainingRun": "training.runs",
    "UDLBridgeError": "errors",
    "alignment": "alignments",
    "alignment_matrix": "alignments",
    "backends": "",
    "centre": "alignments",
    "check": "checking",
    "compare_models": "comparing",
    "compute_kernel": "computing",
    "data": "",
    "decoding": "",
    "expressions": "",
    "feature_kernel": "alignments",
    "features": "alignments",
    "from_flux": "conversion",
    "from_torch": "conversion",
    "init": "",
    "input_hessian": "kernel",
    "input_jacobian": "kernel",
    "jacobian": "kernel",
    "label_kernel": "alignments",
    "layer_alignments": "alignments",
    "loss_gradient": "training.loop",
    "losses": "",
    "models": "",
    "ntk": "kernel",
    "ntk_operator": "operators",
    "outputs": "kernel",
    "plan": "planning",
    "repair": "repairing",
    "optimize": "",
    "signal_report": "signals",
    "spectrum": "spectra",
    "study_alignment": "alignment_study",
    "testing": "",
    "train": "training.loop",
}
"""Every public name, and the module that it lives in; "" means that it is a module itself.

No function here has the name of a module: importing the module would put it in the function's place.
"""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("udlbridge")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'udlbridge' has no attribute {name!r}")
    module = import_module(f"udlbridge.{home or name}")
    value = getattr(module, name) if home else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
