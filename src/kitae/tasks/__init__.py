"""What fine-tuning learns and how it is scored."""
