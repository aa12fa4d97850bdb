"""One transaction for everything that belongs together, and the producers it goes through."""
