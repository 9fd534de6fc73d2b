"""PyTorch as an engine: `torch.func` for Jacobians, batched backward passes for structured kernels."""
