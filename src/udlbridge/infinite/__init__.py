"""Kernels of infinitely wide networks: NNGP and NTK, and how finite networks approach them.

Examples:
    >>> layers = [ub.Dense(2, 1, "relu"), ub.Dense(1, 1)]  # widths do not matter
    >>> ub.infinite.kernels(layers, np.eye(2), w_std=2**0.5, b_std=0.0).nngp.diagonal().round(6)
    array([1., 1.])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "convergence": ["Convergence", "converges"],
        "kernels": ["Kernels", "kernels"],
        "stores": ["InfiniteStore", "compute_kernel"],
    },
)
