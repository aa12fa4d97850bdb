"""What an event sees of other streams."""
