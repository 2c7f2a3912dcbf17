"""The command line: Hydra at the edge, sweeps, searches, checks before a run."""
