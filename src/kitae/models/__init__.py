"""Encoders, heads, and their translation from and to Hugging Face folders."""
