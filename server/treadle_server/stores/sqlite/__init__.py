"""The store in one SQLite file: one thread writes, others read, with hand-written SQL where it runs."""
