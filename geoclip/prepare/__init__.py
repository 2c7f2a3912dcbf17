"""Offline preparation: shards, galleries, inspection."""
