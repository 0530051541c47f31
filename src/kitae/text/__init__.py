"""Documents: reading, cleaning, splitting, dropping. No torch."""
