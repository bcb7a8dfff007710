"""What a test reads of the file of a running server."""

import sqlite3
from pathlib import Path


def event_count(db: Path) -> int:
    """How many events are committed. Only while a server runs: a reader alone cannot open its log."""
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT coalesce(sum(sequence), 0) FROM threads").fetchone()[0])
    finally:
        connection.close()
