"""Kernels of networks in scikit-learn: regression, classification, Gaussian processes, and pairwise kernels.

Install it with `pip install 'udlbridge[sklearn]'`.

Examples:
    >>> from udlbridge.estimators import NTKRidge
    >>> x = np.linspace(-1, 1, 8)[:, None]
    >>> bool(NTKRidge(alpha=1e-6).fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.99)
    True
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
