"""The networks of GeoCLIP and its queue. Plain arguments, no configuration."""
