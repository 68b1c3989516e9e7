-- Takes the key of a write; waits for a transaction that took it and has not ended.
-- The log is told first which run writes, so that a change that comes back can be told from others.
with told as materialized (
  select pg_logical_emit_message(true, 'permaflow.cause', split_part(%(key)s, ':', 1))
)
insert into permaflow_target.applied (key) select %(key)s from told
on conflict do nothing returning key
