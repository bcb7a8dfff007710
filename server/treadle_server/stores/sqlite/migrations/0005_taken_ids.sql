-- Ids of threads whose rows are gone: they are not free again. Without a checksum: all that a row says is its key.

CREATE TABLE taken_ids (
  tenant INTEGER NOT NULL,
  id     TEXT NOT NULL,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER thread_ids_stay_taken AFTER DELETE ON threads BEGIN
  INSERT OR IGNORE INTO taken_ids VALUES (old.tenant, old.id);
END;
