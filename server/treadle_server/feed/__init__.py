"""Streams of what was committed: every subscriber is a cursor, never a queue."""
