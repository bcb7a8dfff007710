-- Memories: short texts by namespace and key, which outlive threads and sessions, and the index that finds them.

CREATE TABLE memories (
  memory      INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant      INTEGER NOT NULL,
  namespace   TEXT NOT NULL,
  key         TEXT NOT NULL,
  text        TEXT NOT NULL,
  words       TEXT NOT NULL,  -- what the index has of it, kept so that just that is taken out of it again
  thread      TEXT NOT NULL,  -- name of the thread that wrote it; empty = a caller did
  revision    INTEGER NOT NULL,
  create_time INTEGER NOT NULL,
  update_time INTEGER NOT NULL,
  checksum    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX memories_by_key ON memories (tenant, namespace, key);
CREATE INDEX memories_by_namespace ON memories (tenant, namespace);
CREATE INDEX memories_by_tenant ON memories (tenant);

-- Every word in it begins with its tenant, so that nobody's search meets the words of others. Written by the
-- statements that write `memories`: a trigger may not use a virtual table while the schema is not trusted.
CREATE VIRTUAL TABLE memory_index USING fts5(
  words, content='memories', content_rowid='memory', tokenize='ascii'
);

-- How much there is, for limits. An empty namespace stands for all of the tenant's.
CREATE TABLE memory_totals (
  tenant     INTEGER NOT NULL,
  namespace  TEXT NOT NULL,
  item_count INTEGER NOT NULL,
  text_bytes INTEGER NOT NULL,
  check_sum  INTEGER NOT NULL,
  PRIMARY KEY (tenant, namespace)
) STRICT, WITHOUT ROWID;
