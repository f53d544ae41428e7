-- A server may log in as a role that is a member of pos_app and of nothing else: what it needs at its start, and /readyz at
-- any time, is to see that the schema is its own version's.
grant select on migration to pos_app;
