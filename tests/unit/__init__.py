"""Tests of single parts and of the whole worker over the in-memory log; no broker."""
