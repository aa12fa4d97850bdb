"""Ready-made flows: short files to copy, each with its model, how it was trained and its quality figures."""
