"""Kernels of networks in scikit-learn: regression, classification, Gaussian processes, and pairwise kernels.

Install it with `pip install 'udlbridge[sklearn]'`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gaussian_process": ["NTKKernel"],
        "pairwise": ["network_kernel"],
        "ridge": ["NTKClassifier", "NTKRidge"],
    },
)
