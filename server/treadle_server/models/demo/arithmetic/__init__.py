"""Arithmetic in words and signs."""
