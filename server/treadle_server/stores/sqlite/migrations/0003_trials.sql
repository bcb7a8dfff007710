-- One row: which threads are on trial for bringing servers down, and which server stopped in order.
CREATE TABLE trials (
  one           INTEGER PRIMARY KEY CHECK (one = 1),
  phase         INTEGER NOT NULL,
  threads       TEXT NOT NULL,     -- JSON array of [tenant, thread]
  drained_epoch INTEGER NOT NULL,  -- of the last server that stopped in order; 0 = none did
  checksum      INTEGER NOT NULL
) STRICT;
