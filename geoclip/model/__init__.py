"""The networks of GeoCLIP, its queue and its loss. Plain arguments, no configuration."""
