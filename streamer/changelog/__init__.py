"""State as the log keeps it, and back: blocks, base snapshots, restore."""
