"""Studies from beginning to end: the Flux kernel notebook, reproduced, and the alignment notebook."""
