"""What the server stores and never serves."""
