"""A run: its folder and identity, its metrics, its logs."""
