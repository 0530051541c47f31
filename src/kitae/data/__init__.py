"""Tokens on disk to batches: shards, packing, sampling."""
