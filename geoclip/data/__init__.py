"""From tar shards, photographs and coordinates to batches."""
