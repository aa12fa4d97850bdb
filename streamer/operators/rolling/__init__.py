"""Windows that end at each event."""
