-- Runs that are held, retried, run again, or moved to another version. pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

alter table run
  add column reopened   int not null default 0,
  add column rerun_of   uuid,
  add column paused_at  timestamptz,
  add column paused_by  text;

alter table timer add column held_at timestamptz;
drop index timer_due;
create index timer_due on timer (due_at) where held_at is null;

-- Controls are rows of the journal like all others; what goes with them is written in the same transaction.
grant insert on journal to permaflow_gateway;
grant update (status, version, error, finished_at, settled_at, reopened, paused_at, paused_by) on run to permaflow_gateway;
grant select, update (due_at, held_at) on timer to permaflow_gateway;
grant update (run_count, success_count, failure_count) on workflow_stats to permaflow_gateway;
