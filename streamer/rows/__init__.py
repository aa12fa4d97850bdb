"""The values that travel: records as they were polled, and batches of columns."""
