"""Generated stubs of the private records."""
