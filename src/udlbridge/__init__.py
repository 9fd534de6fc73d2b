"""One Python API for the gradient kernels of neural networks, on Flux/Zygote in Julia, on PyTorch, and by hand.

Importing this package imports neither torch nor juliacall and starts nothing: names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from udlbridge import backends as backends
    from udlbridge import data as data
    from udlbridge import models as models
    from udlbridge import testing as testing
    from udlbridge.checking import CheckReport as CheckReport
    from udlbridge.checking import check as check
    from udlbridge.errors import JuliaUnavailable as JuliaUnavailable
    from udlbridge.errors import UDLBridgeError as UDLBridgeError
    from udlbridge.kernel import input_jacobian as input_jacobian
    from udlbridge.kernel import jacobian as jacobian
    from udlbridge.kernel import ntk as ntk
    from udlbridge.kernel import outputs as outputs
    from udlbridge.layers import Dense as Dense
    from udlbridge.layers import Flatten as Flatten
    from udlbridge.layers import Softmax as Softmax
    from udlbridge.model import Model as Model
    from udlbridge.operators import NTKOperator as NTKOperator
    from udlbridge.operators import ntk_operator as ntk_operator
    from udlbridge.repairing import Repair as Repair
    from udlbridge.repairing import repair as repair
    from udlbridge.spectra import Spectrum as Spectrum
    from udlbridge.spectra import spectrum as spectrum

_HOME = {
    "CheckReport": "checking",
    "Dense": "layers",
    "Flatten": "layers",
    "JuliaUnavailable": "errors",
    "Model": "model",
    "NTKOperator": "operators",
    "Repair": "repairing",
    "Softmax": "layers",
    "Spectrum": "spectra",
    "UDLBridgeError": "errors",
    "backends": "",
    "check": "checking",
    "data": "",
    "input_jacobian": "kernel",
    "jacobian": "kernel",
    "models": "",
    "ntk": "kernel",
    "ntk_operator": "operators",
    "outputs": "kernel",
    "repair": "repairing",
    "spectrum": "spectra",
    "testing": "",
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
