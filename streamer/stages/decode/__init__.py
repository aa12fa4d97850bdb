"""Bytes to columns; what cannot be read becomes a dead letter."""
