"""Formats of records: what the bytes of a record say of an event, and why not where they say nothing."""
