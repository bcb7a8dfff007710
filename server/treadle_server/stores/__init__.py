"""Stores: the ports `log`, `catalogue` and `notes`, kept in SQLite; the log in memory too."""
