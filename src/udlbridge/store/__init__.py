"""Kernels on disk: of any size, resumable, verified, and read one tile at a time."""
