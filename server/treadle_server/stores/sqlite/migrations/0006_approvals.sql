-- What waits for people, and what they decided: one row an approval, changed in the unit of each event about it.

CREATE TABLE approvals (
  approval    INTEGER PRIMARY KEY,
  tenant      INTEGER NOT NULL,
  thread      INTEGER NOT NULL,
  id          TEXT NOT NULL,
  kind        INTEGER NOT NULL,
  state       INTEGER NOT NULL,
  create_time INTEGER NOT NULL,
  body        BLOB NOT NULL,
  checksum    INTEGER NOT NULL,
  UNIQUE (thread, id)
) STRICT;
CREATE INDEX approvals_by_tenant ON approvals (tenant, approval);
CREATE INDEX approvals_pending ON approvals (tenant, approval) WHERE state = 1;
