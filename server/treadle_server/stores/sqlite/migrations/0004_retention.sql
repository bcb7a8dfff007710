-- Tenants say how long their threads are kept; what was taken leaves no silent gap and nothing behind.

ALTER TABLE tenants ADD COLUMN display_name TEXT NOT NULL DEFAULT '';
ALTER TABLE tenants ADD COLUMN thread_retention INTEGER;  -- micros; NULL = as long as the server says
ALTER TABLE tenants ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE tenants ADD COLUMN update_time INTEGER NOT NULL DEFAULT 0;
UPDATE tenants SET update_time = create_time, checksum = CASE
  WHEN checksum = row_checksum(id, create_time)
  THEN row_checksum(id, '', NULL, 1, create_time, create_time) ELSE checksum END;

-- Told from a deleted one: who goes on reading where it was learns that it expired.
ALTER TABLE threads ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
CREATE INDEX threads_to_expire ON threads (tenant, end_time) WHERE end_time IS NOT NULL AND delete_time IS NULL;
CREATE INDEX threads_to_forget ON threads (delete_time) WHERE purged = 1;

-- Where to look for the commit that ended the thread: that row says itself whether it is the one.
ALTER TABLE thread_details ADD COLUMN end_position INTEGER;
UPDATE thread_details SET end_position = c.last_position
FROM (SELECT thread, max(position) AS last_position FROM commits GROUP BY thread) c
WHERE c.thread = thread_details.thread AND thread_details.summary IS NOT NULL;
CREATE INDEX thread_details_by_spec ON thread_details (spec_digest);
CREATE INDEX specs_by_digest ON specs (digest);

-- Up to this position a tenant's commits are no longer whole: retention took threads that they were of.
CREATE TABLE horizons (
  tenant   INTEGER PRIMARY KEY,
  position INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
