"""The commands that need nothing but a server to talk to."""
