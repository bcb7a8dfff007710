-- Times are micros since 1970, UTC. Keys are integers and never given twice; ids are the callers' own words.

CREATE TABLE meta (
  one         INTEGER PRIMARY KEY CHECK (one = 1),
  schema      INTEGER NOT NULL,  -- number of the last migration
  core        INTEGER NOT NULL,  -- the oldest fold that understands every event in here
  epoch       INTEGER NOT NULL,  -- raised by every server that opens the file; only the last may write
  next_thread INTEGER NOT NULL   -- no key below was ever free again
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0, 1);

-- A record's row is never changed. `checksum` is over both blobs, the kind and the sequence.
CREATE TABLE events (
  tenant   INTEGER NOT NULL,
  thread   INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  kind     INTEGER NOT NULL,
  body     BLOB NOT NULL,
  private  BLOB,
  checksum INTEGER NOT NULL,
  PRIMARY KEY (tenant, thread, sequence)
) STRICT, WITHOUT ROWID;

-- One row per append: the cursor of everything that spans threads. A position is never given twice.
CREATE TABLE commits (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant   INTEGER NOT NULL,
  thread   INTEGER NOT NULL,
  session  INTEGER NOT NULL,
  root     INTEGER NOT NULL,
  first    INTEGER NOT NULL,
  last     INTEGER NOT NULL
) STRICT;

CREATE TABLE request_ids (
  tenant        INTEGER NOT NULL,
  request_id    TEXT NOT NULL,
  principal     TEXT NOT NULL,
  method        TEXT NOT NULL,
  digest        BLOB NOT NULL,
  resource      TEXT NOT NULL,
  from_sequence INTEGER NOT NULL,
  response      BLOB,
  expire_time   INTEGER NOT NULL,
  PRIMARY KEY (tenant, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_ids_by_expire_time ON request_ids (expire_time);

CREATE TABLE specs (
  tenant   INTEGER NOT NULL,
  digest   BLOB NOT NULL,
  body     BLOB NOT NULL,
  checksum INTEGER NOT NULL,
  UNIQUE (tenant, digest)
) STRICT;

-- What changes with every append, small. A row outlives its log, so that its id stays taken.
CREATE TABLE threads (
  thread          INTEGER PRIMARY KEY,
  tenant          INTEGER NOT NULL,
  id              TEXT NOT NULL,
  agent           INTEGER NOT NULL,
  version         INTEGER NOT NULL,
  session         INTEGER,  -- NULL = none, as subject_id: their indexes leave those rows out
  state           INTEGER NOT NULL,
  stop_reason     INTEGER NOT NULL,
  sequence        INTEGER NOT NULL,
  epoch           INTEGER NOT NULL,
  revision        INTEGER NOT NULL DEFAULT 1,
  create_time     INTEGER NOT NULL,
  start_time      INTEGER,
  state_time      INTEGER NOT NULL,
  end_time        INTEGER,
  wake_at         INTEGER,
  iteration_count INTEGER NOT NULL,
  tool_call_count INTEGER NOT NULL,
  total_tokens    INTEGER NOT NULL,
  cost_micros     INTEGER NOT NULL,
  subject_type    TEXT NOT NULL,
  subject_id      TEXT,
  trigger_type    INTEGER NOT NULL,
  delete_time     INTEGER,
  purged          INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX threads_by_id ON threads (tenant, id);
CREATE INDEX threads_by_create_time ON threads (tenant, create_time) WHERE delete_time IS NULL;
CREATE INDEX threads_by_state_time ON threads (tenant, state_time) WHERE delete_time IS NULL;
CREATE INDEX threads_by_state ON threads (tenant, state, create_time) WHERE delete_time IS NULL;
CREATE INDEX threads_by_agent ON threads (tenant, agent, create_time) WHERE delete_time IS NULL;
CREATE INDEX threads_by_agent_state ON threads (tenant, agent, state, create_time) WHERE delete_time IS NULL;
CREATE INDEX threads_by_session ON threads (tenant, session, create_time)
  WHERE delete_time IS NULL AND session IS NOT NULL;
CREATE INDEX threads_by_subject ON threads (tenant, subject_type, subject_id, create_time)
  WHERE delete_time IS NULL AND subject_id IS NOT NULL;
CREATE INDEX threads_unfinished ON threads (thread) WHERE state < 6;
CREATE INDEX threads_by_wake_at ON threads (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX threads_to_purge ON threads (thread) WHERE delete_time IS NOT NULL AND purged = 0;

CREATE TRIGGER thread_keys_stay_taken AFTER DELETE ON threads BEGIN
  UPDATE meta SET next_thread = max(next_thread, old.thread + 1);
END;

-- What seldom changes, and may be large: apart from the row above, which every append writes again.
CREATE TABLE thread_details (
  thread           INTEGER PRIMARY KEY,
  spec_digest      BLOB NOT NULL,
  triggered_by     TEXT NOT NULL,
  tags             TEXT NOT NULL,  -- JSON array
  labels           TEXT NOT NULL,  -- JSON object
  client_metadata  BLOB NOT NULL,
  checksum         INTEGER NOT NULL,
  summary          BLOB,
  summary_checksum INTEGER
) STRICT;

CREATE TABLE thread_tags (
  tenant      INTEGER NOT NULL,
  tag         TEXT NOT NULL,
  create_time INTEGER NOT NULL,
  thread      INTEGER NOT NULL,
  PRIMARY KEY (tenant, tag, create_time, thread)
) STRICT, WITHOUT ROWID;

CREATE TABLE thread_labels (
  tenant      INTEGER NOT NULL,
  label       TEXT NOT NULL,
  value       TEXT NOT NULL,
  create_time INTEGER NOT NULL,
  thread      INTEGER NOT NULL,
  PRIMARY KEY (tenant, label, value, create_time, thread)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
  session       INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant        INTEGER NOT NULL,
  id            TEXT NOT NULL,
  session_key   TEXT NOT NULL,  -- empty = none
  agent         INTEGER NOT NULL,
  parent_object TEXT NOT NULL,
  active_thread INTEGER,
  create_time   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX sessions_by_id ON sessions (tenant, id);
CREATE INDEX sessions_by_tenant ON sessions (tenant);
CREATE UNIQUE INDEX sessions_by_session_key ON sessions (tenant, session_key) WHERE session_key > '';

CREATE TABLE tenants (
  tenant      INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT NOT NULL UNIQUE,
  create_time INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
  api_key      INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant       INTEGER NOT NULL,
  id           TEXT NOT NULL,
  principal    TEXT NOT NULL,
  admin        INTEGER NOT NULL,
  prefix       TEXT NOT NULL UNIQUE,
  secret_hash  BLOB NOT NULL,
  display_name TEXT NOT NULL,
  revision     INTEGER NOT NULL DEFAULT 1,
  create_time  INTEGER NOT NULL,
  update_time  INTEGER NOT NULL,
  expire_time  INTEGER,
  delete_time  INTEGER,
  checksum     INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (tenant, id);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant) WHERE delete_time IS NULL;

CREATE TABLE agents (
  agent       INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant      INTEGER NOT NULL,
  id          TEXT NOT NULL,
  version     INTEGER NOT NULL,
  revision    INTEGER NOT NULL,
  body        BLOB NOT NULL,
  create_time INTEGER NOT NULL,
  update_time INTEGER NOT NULL,
  delete_time INTEGER,
  purge_time  INTEGER,
  purged      INTEGER NOT NULL DEFAULT 0,
  checksum    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX agents_by_id ON agents (tenant, id);
CREATE INDEX agents_by_tenant ON agents (tenant);
CREATE INDEX agents_to_purge ON agents (purge_time) WHERE purge_time IS NOT NULL AND purged = 0;

CREATE TABLE agent_versions (
  agent       INTEGER NOT NULL,
  version     INTEGER NOT NULL,
  body        BLOB NOT NULL,
  create_time INTEGER NOT NULL,
  checksum    INTEGER NOT NULL,
  UNIQUE (agent, version)
) STRICT;

CREATE TABLE notes (
  tenant   INTEGER NOT NULL,
  scope    TEXT NOT NULL,
  key      TEXT NOT NULL,
  text     TEXT NOT NULL,
  checksum INTEGER NOT NULL,
  UNIQUE (tenant, scope, key)
) STRICT;
