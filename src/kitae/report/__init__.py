"""Tables and cards, read from the JSON of artifacts only."""
