"""Results as records, as far as the producer has room."""
