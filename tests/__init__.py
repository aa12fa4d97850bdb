"""Tests, fast ones first: unit and property need nothing, kafka and faults need a real broker."""
