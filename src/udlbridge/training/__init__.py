"""Training as data and as a loop: losses, optimisers, schedules, batches, probes, runs. Engines do the steps."""
