"""Words and vocabularies: from text to token ids and back. No torch."""
