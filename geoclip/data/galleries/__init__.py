"""Galleries of coordinates: where places come from, and which are kept."""
