"""Questions about JSON."""
