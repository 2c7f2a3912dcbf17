"""The Earth: distances, noise, projections and encodings of coordinates. Pure functions."""
