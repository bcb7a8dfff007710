"""Measurements of the server against floors taken beside it, in the same run on the same machine."""
