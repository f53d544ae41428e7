-- SHA-256 of the archive file that this ledger published last. A file that a killed run left without a record is
-- recognized by it. Null: nothing was published.
alter table ledger drop column archive_attempts, add column published_sha256 bytea;
