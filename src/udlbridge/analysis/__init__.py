"""What a kernel says: spectra and positivity, alignments of kernels, and comparisons of engines and networks."""
