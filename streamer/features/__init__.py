"""The user's functions: what they ask for, and how they are called."""
