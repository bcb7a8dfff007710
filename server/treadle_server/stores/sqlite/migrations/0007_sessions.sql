-- Sessions are named, labelled and deleted; threads and keys say which objects of the caller's they are about.

ALTER TABLE sessions ADD COLUMN number INTEGER NOT NULL DEFAULT 0;  -- 1, 2, 3 within the tenant
ALTER TABLE sessions ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;   -- a thread was made in it
ALTER TABLE sessions ADD COLUMN context_initial TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';  -- JSON object
ALTER TABLE sessions ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE sessions ADD COLUMN update_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN delete_time INTEGER;
UPDATE sessions SET number = c.number, begun = 1, update_time = create_time, checksum = CASE
  WHEN checksum = row_checksum(tenant, id, session_key, agent, parent_object, create_time)
  THEN row_checksum(tenant, id, session_key, agent, parent_object, create_time, c.number, 1, '', '{}', 1,
    create_time, NULL) ELSE checksum END
FROM (SELECT session AS counted, row_number() OVER (PARTITION BY tenant ORDER BY session) AS number FROM sessions) c
WHERE c.counted = sessions.session;
CREATE INDEX sessions_by_number ON sessions (tenant, number);
-- Notes of a deleted session go by and by.
ALTER TABLE sessions ADD COLUMN purged INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sessions_to_purge ON sessions (session) WHERE delete_time IS NOT NULL AND purged = 0;
CREATE INDEX threads_in_session ON threads (session, thread) WHERE state < 6 AND session IS NOT NULL;

-- Apart from the threads: most are about no object, and nothing of it ever changes.
CREATE TABLE thread_objects (
  thread        INTEGER PRIMARY KEY,
  tenant        INTEGER NOT NULL,
  parent_object TEXT NOT NULL,
  checksum      INTEGER NOT NULL
) STRICT;
CREATE INDEX thread_objects_by_object ON thread_objects (tenant, parent_object, thread);

ALTER TABLE api_keys ADD COLUMN object_patterns TEXT NOT NULL DEFAULT '[]';  -- JSON array; none = reaches all
UPDATE api_keys SET checksum = CASE
  WHEN checksum = row_checksum(tenant, id, principal, admin, prefix, secret_hash, display_name, revision,
    create_time, update_time, expire_time, delete_time)
  THEN row_checksum(tenant, id, principal, admin, prefix, secret_hash, display_name, revision,
    create_time, update_time, expire_time, delete_time, '[]') ELSE checksum END;
