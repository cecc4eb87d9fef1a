"""Training: the loop, its settings, processes, checkpoints and networks."""
