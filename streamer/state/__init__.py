"""Keyed state: compiled window kernels, one store per stage and partition, and the changelog that rebuilds it."""
