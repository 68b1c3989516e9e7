-- name: append
-- Adds a row to the journal of a run that has one of these statuses. Whoever else adds that row at this moment fails
-- on the primary key, or this does.
insert into permaflow.journal (run_id, seq, org_id, entries)
select id, coalesce((select max(seq) from permaflow.journal where run_id = %(id)s), 0) + 1, org_id, %(entries)s::json
from permaflow.run
where id = %(id)s and org_id = %(org)s and status = any(%(statuses)s)
  and (%(after)s::int4 is null
    or coalesce((select max(seq) from permaflow.journal where run_id = %(id)s), 0) = %(after)s)
returning seq;

-- name: reopen
-- Lets a run go on that has ended, and takes it back out of the counts.
with mine as materialized (
  select id, workflow_id, status, settled_at from permaflow.run
  where id = %(id)s and org_id = %(org)s
  for update
), uncounted as (
  update permaflow.workflow_stats as stats set
    run_count = run_count - 1,
    success_count = success_count - (status = 'completed')::int,
    failure_count = failure_count - (status <> 'completed')::int
  from mine where stats.workflow_id = mine.workflow_id and settled_at is not null
)
update permaflow.run set status = 'running', error = null, finished_at = null, settled_at = null, cancel_at = null,
  cancel_by = null, paused_at = null, paused_by = null, reopened = reopened + 1
from mine where run.id = mine.id;

-- name: was_undone
-- Whether anything that a run had done was undone, whatever its end is.
select exists (
  select from permaflow.journal
  where run_id = %(id)s and org_id = %(org)s and position('#compensate",' in entries::text) > 0
    and seq >= (
      select min(seq) from permaflow.journal as first
      where first.run_id = %(id)s and position('["compensating",' in first.entries::text) > 0));

-- name: pause
-- Holds a run.
update permaflow.run set status = 'waiting', paused_at = clock_timestamp(), paused_by = %(by)s
where id = %(id)s and org_id = %(org)s;

-- name: resume
-- Lets a run that was held go on. It is running until an orchestrator has found that it waits for something.
update permaflow.run set status = 'running', paused_at = null, paused_by = null
where id = %(id)s and org_id = %(org)s;

-- name: release_timers
-- Lets the timers of a run count again. What limits a time gets as much more as the run was held.
update permaflow.timer set held_at = null, due_at = case
  when key = 'run' or starts_with(key, E'run\x1f') or starts_with(key, E'timeout\x1f')
  then due_at + (clock_timestamp() - held_at) else due_at end
where run_id = %(id)s and org_id = %(org)s and held_at is not null;

-- name: migrate
-- Lets a run go on by another version. It is running until an orchestrator has found that it waits for something.
update permaflow.run
set version = %(version)s, status = case when paused_at is null then 'running' else status end
where id = %(id)s and org_id = %(org)s;
