-- When threads began whose agent limits how many may begin within a time. Kept for that time, whatever becomes
-- of the thread.
CREATE TABLE starts (
  agent       INTEGER NOT NULL,
  start_time  INTEGER NOT NULL,
  thread      INTEGER NOT NULL,
  expire_time INTEGER NOT NULL,  -- from then on it does not count
  checksum    INTEGER NOT NULL,
  PRIMARY KEY (agent, start_time, thread)
) STRICT, WITHOUT ROWID;
CREATE INDEX starts_to_forget ON starts (expire_time);
