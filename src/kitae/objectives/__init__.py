"""What pre-training learns."""
