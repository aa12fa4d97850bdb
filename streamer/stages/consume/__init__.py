"""Records from the group's partitions, never more than there is room for."""
