"""Generated stubs of the `treadle.v1` API."""
