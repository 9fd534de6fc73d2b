"""Julia as an engine: Flux and Zygote, through juliacall."""
