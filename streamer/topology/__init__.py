"""What a user writes and sees: events, steps, windows, and what a feature function is given."""
