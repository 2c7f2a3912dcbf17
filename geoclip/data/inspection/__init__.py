"""Whether shards are whole, and what is in them."""
