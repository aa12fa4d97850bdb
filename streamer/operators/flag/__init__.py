"""Scores to decisions."""
