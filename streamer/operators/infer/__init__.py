"""Rows to a model and back, in order."""
