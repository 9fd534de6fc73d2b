"""Graphs in torch: every operation in torch's functions, which autograd differentiates."""
