"""Shards from what people have: planned, checked, shuffled, written."""
