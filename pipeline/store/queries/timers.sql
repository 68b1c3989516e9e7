-- name: claim
-- Takes timers that are due and puts them off, so that they come again if whoever took them dies. The
-- orchestrator deletes a timer in the transaction that follows from it.
with due as (
  select run_id, key from permaflow.timer
  where due_at <= statement_timestamp() and held_at is null
  order by due_at
  limit %(limit)s
  for update skip locked
)
update permaflow.timer
set due_at = clock_timestamp() + make_interval(secs => %(again_after)s)
from due
where timer.run_id = due.run_id and timer.key = due.key
returning timer.run_id, timer.key, timer.org_id as org;

-- name: wait
-- Seconds until the next timer is due; below 0 if it is overdue.
select extract(epoch from min(due_at) - clock_timestamp())::float8 from permaflow.timer where held_at is null;
