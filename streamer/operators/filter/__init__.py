"""Which rows go on."""
