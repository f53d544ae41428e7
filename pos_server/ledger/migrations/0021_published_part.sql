-- A file of the archive that was published but not recorded is recognized by its content, so that it is the same when it is
-- written again. Null: nothing was published.
alter table ledger drop column archive_attempts, add column published_sha256 bytea;
