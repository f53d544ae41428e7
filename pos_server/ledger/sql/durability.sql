-- name: confirm_durable
-- Commits a message without content if there is a synchronous standby. Assigning a transaction id alone would not wait.
select case when current_setting('synchronous_standby_names') <> ''
    then pg_logical_emit_message(true, 'pos_server', '') end;
