"""State, loop, schedule and checkpoints of a training run."""
