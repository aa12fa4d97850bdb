"""Windows that close: tumbling, hopping, session."""
