"""Other systems that do the same work beside the service."""
