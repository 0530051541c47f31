"""Recipes, artifacts, units, errors: what every floor stands on. Standard library and pydantic only."""
