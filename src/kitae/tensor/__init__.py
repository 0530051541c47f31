"""The few torch types that everybody shares."""
