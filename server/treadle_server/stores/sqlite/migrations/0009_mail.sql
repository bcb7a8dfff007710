-- What threads tell each other, between the unit that says it and the one that takes it.

CREATE TABLE mail (
  position  INTEGER PRIMARY KEY AUTOINCREMENT,  -- what is told first has the smaller one
  tenant    INTEGER NOT NULL,
  to_thread INTEGER NOT NULL,
  body      BLOB NOT NULL,
  checksum  INTEGER NOT NULL  -- of tenant and body, and the receiver's key thrice
) STRICT;
CREATE INDEX mail_by_thread ON mail (to_thread);

-- Threads that an agent of another thread called. `root` is the first thread of the tree.
CREATE TABLE lineage (
  thread   INTEGER PRIMARY KEY,
  tenant   INTEGER NOT NULL,
  parent   INTEGER NOT NULL,
  root     INTEGER NOT NULL,
  checksum INTEGER NOT NULL  -- a sum, as of threads
) STRICT;
CREATE INDEX lineage_by_parent ON lineage (parent);

-- Of the first commit of a thread: where a stream of its whole tree begins. As end_position it is only a hint.
ALTER TABLE thread_details ADD COLUMN begin_position INTEGER;
UPDATE thread_details SET begin_position = c.first_position
FROM (SELECT thread, min(position) AS first_position FROM commits GROUP BY thread) c
WHERE c.thread = thread_details.thread;

CREATE TRIGGER mail_goes_with_its_thread AFTER UPDATE OF purged ON threads WHEN new.purged = 1 BEGIN
  DELETE FROM mail WHERE to_thread = new.thread;
END;
CREATE TRIGGER lineage_goes_with_its_thread AFTER DELETE ON threads BEGIN
  DELETE FROM lineage WHERE thread = old.thread;
END;
