"""Graphs from PyTorch: torch.export shows what a module computes, and each of its operations has a translation."""
