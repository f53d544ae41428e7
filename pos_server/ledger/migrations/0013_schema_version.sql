-- /readyz compares what is applied with what the server was built for.
grant select on migration to pos_app;
