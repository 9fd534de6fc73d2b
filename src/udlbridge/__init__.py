"""One Python API for the gradient kernels of neural networks, on Flux/Zygote in Julia, on PyTorch, and by hand.

Importing this package imports neither torch nor juliacall and starts nothing: names are loaded when first used. They
are listed once, in `__init__.pyi`.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("udlbridge")
    return _load(name)
