"""Lists of links for img2dataset, and what became of them."""
