"""Kernels of infinitely wide networks: NNGP and NTK, and how finite networks approach them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "convergence": ["Convergence", "converges"],
        "kernels": ["Kernels", "kernels"],
        "stores": ["InfiniteStore", "compute_kernel"],
    },
)
