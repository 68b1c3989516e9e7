-- name: configure
-- Sets up a new connection. Every query of the store looks ids up or reads along an index, and its plan is kept
-- for long: made on a young table it must not be one that reads the whole table once the table has grown. Where
-- a connection has few and simple statements, `plans` = force_generic_plan saves making a plan for each call: for
-- arrays of ids PostgreSQL does that for ever, and it takes four times as long as to look a few of them up.
select
  set_config('role', %(role)s, false),
  set_config('statement_timeout', %(statement_timeout)s, false),
  set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, false),
  set_config('plan_cache_mode', %(plans)s, false),
  set_config('enable_seqscan', 'off', false),
  set_config('enable_hashjoin', 'off', false),
  set_config('enable_mergejoin', 'off', false);

-- name: server
-- What must hold for every commit to last.
select
  current_setting('server_version_num')::int as version,
  current_setting('fsync') as fsync,
  current_setting('full_page_writes') as full_page_writes,
  current_setting('synchronous_commit') as synchronous_commit;

-- name: set_org
-- Chooses the organisation whose rows this transaction may see.
select set_config('permaflow.org', %(org)s, true);
