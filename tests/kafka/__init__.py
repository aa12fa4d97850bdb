"""What is only true if a real broker says so."""
