"""The teaching half: likelihoods, formulas and their gradients, descents, decoding, and the practicals.

Source: Prince, Understanding Deep Learning (2023).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["decoding", "expressions", "losses", "optimize", "practicals"]
)
