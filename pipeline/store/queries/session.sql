-- name: configure
-- Sets up a new connection, and tells what must hold for every commit to last.
select
  set_config('role', %(role)s, false),
  set_config('statement_timeout', %(statement_timeout)s, false),
  set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, false),
  current_setting('server_version_num')::int as version,
  current_setting('fsync') as fsync,
  current_setting('full_page_writes') as full_page_writes,
  current_setting('synchronous_commit') as synchronous_commit;

-- name: set_org
-- Chooses the organisation whose rows this transaction may see.
select set_config('permaflow.org', %(org)s, true);
