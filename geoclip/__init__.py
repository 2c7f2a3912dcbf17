"""geoclip: train, evaluate, take apart and improve GeoCLIP (NeurIPS 2023), worldwide image geo-localisation."""

__version__ = "0.1.0"
