"""What `checkpoint=` may name."""
