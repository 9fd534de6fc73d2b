"""Networks that come from elsewhere and go there: PyTorch, Flux, and files of other formats."""
