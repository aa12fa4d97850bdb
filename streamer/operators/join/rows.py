"""Rows of values before the fields of an event that waits in a join: its stream, its offset and its record timestamp (ms)."""

STREAM, OFFSET, TIMESTAMP_MS, HIDDEN = 0, 1, 2, 3
