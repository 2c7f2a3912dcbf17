"""The Earth: distances, projection and Fourier features. Pure functions; imports torch and numpy only."""
