"""Kernels in memory: derivatives, the NTK, its plan and its tiles, and the kernel as an operator."""
