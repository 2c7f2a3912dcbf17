"""Released weights: resolving `checkpoint=`, reading and exporting."""
