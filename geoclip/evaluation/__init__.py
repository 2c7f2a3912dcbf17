"""Galleries, retrieval, and the measures of geo-localisation."""
