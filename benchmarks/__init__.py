"""Paired measurements of kitae and its peers: each script runs both sides by turns in one process tree and prints ratios."""
