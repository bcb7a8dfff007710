-- Every row gets a checksum. `row_checksum` and `row_checksum_before` are the program's; what a row of schema 1
-- had of its own is verified before a new one is given, so that damage stays damage.

ALTER TABLE meta ADD COLUMN check_sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN schema_checksum INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER thread_keys_stay_taken;
CREATE TRIGGER thread_keys_stay_taken AFTER DELETE ON threads BEGIN
  UPDATE meta SET check_sum = check_sum + 9 * (max(next_thread, old.thread + 1) - next_thread),
    next_thread = max(next_thread, old.thread + 1);
END;

-- Two sums and a checksum, because an append must not compute what it does not change.
ALTER TABLE threads ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;      -- of the texts
ALTER TABLE threads ADD COLUMN identity_sum INTEGER NOT NULL DEFAULT 0;  -- of numbers that seldom change
ALTER TABLE threads ADD COLUMN progress_sum INTEGER NOT NULL DEFAULT 0;  -- of numbers that follow the log
UPDATE threads SET
  checksum = row_checksum(thread, id, subject_type, subject_id),
  identity_sum = 3 * tenant + 5 * agent + 7 * version + 9 * coalesce(session, -1) + 11 * create_time
    + 13 * trigger_type + 15 * revision + 17 * coalesce(delete_time, -1),
  progress_sum = 3 * sequence + 5 * epoch + 7 * iteration_count + 9 * tool_call_count + 11 * total_tokens
    + 13 * cost_micros + 15 * state + 17 * stop_reason + 19 * state_time + 21 * coalesce(wake_at, -1)
    + 23 * coalesce(start_time, -1) + 25 * coalesce(end_time, -1);
UPDATE thread_details SET
  checksum = CASE
    WHEN checksum = row_checksum_before(spec_digest, triggered_by, tags, labels, client_metadata)
    THEN row_checksum(spec_digest, triggered_by, tags, labels, client_metadata) ELSE checksum END,
  summary_checksum = CASE
    WHEN summary IS NOT NULL AND summary_checksum = row_checksum_before(summary)
    THEN row_checksum(summary) ELSE summary_checksum END;

-- What a filter reads and no checksum can miss: a second copy, compared with the first by `integrity_check`.
CREATE INDEX thread_tags_by_thread ON thread_tags (thread);
CREATE INDEX thread_labels_by_thread ON thread_labels (thread);
CREATE INDEX agents_living ON agents (tenant) WHERE purged = 0 AND delete_time IS NULL;

ALTER TABLE commits ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE commits SET checksum = 3 * tenant + 5 * thread + 7 * session + 9 * root + 11 * first + 13 * last;

ALTER TABLE request_ids ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE request_ids SET checksum = row_checksum(
  tenant, request_id, principal, method, digest, resource, from_sequence, response, expire_time);

UPDATE specs SET checksum = CASE
  WHEN checksum = row_checksum_before(body) THEN row_checksum(digest, body) ELSE checksum END;

-- active_mirror is ~active_thread: both are written by appends, and neither can change alone unnoticed.
ALTER TABLE sessions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN active_mirror INTEGER;
UPDATE sessions SET
  checksum = row_checksum(tenant, id, session_key, agent, parent_object, create_time),
  active_mirror = ~active_thread;

ALTER TABLE tenants ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE tenants SET checksum = row_checksum(id, create_time);

UPDATE api_keys SET checksum = CASE
  WHEN checksum = row_checksum_before(tenant, id, principal, admin, prefix, secret_hash, display_name, revision,
    create_time, update_time, expire_time)
  THEN row_checksum(tenant, id, principal, admin, prefix, secret_hash, display_name, revision,
    create_time, update_time, expire_time, delete_time) ELSE checksum END;
UPDATE agents SET checksum = CASE
  WHEN checksum = row_checksum_before(id, version, body)
  THEN row_checksum(tenant, id, version, revision, body, create_time, update_time, delete_time, purge_time)
  ELSE checksum END;
UPDATE agent_versions SET checksum = CASE
  WHEN checksum = row_checksum_before(version, body)
  THEN row_checksum(agent, version, body, create_time) ELSE checksum END;
UPDATE notes SET checksum = CASE
  WHEN checksum = row_checksum_before(scope, key, text)
  THEN row_checksum(tenant, scope, key, text) ELSE checksum END;
