"""Published tasks, ready to be named in a recipe."""
