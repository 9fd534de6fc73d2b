"""What a network is: its layers, its parameters by name, the samples that it takes, and its files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["init", "models"])
