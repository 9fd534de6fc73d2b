"""The engine written by hand in NumPy: no autodiff, no cleverness. It says which of the other two is wrong."""
