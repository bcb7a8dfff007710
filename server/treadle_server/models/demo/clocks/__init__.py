"""Questions about clocks."""
