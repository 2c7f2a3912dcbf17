"""Prediction, its pictures and pages; embeddings; feature extraction."""
