"""The pipeline alone."""
