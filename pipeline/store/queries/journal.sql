-- name: load_runs
-- What an orchestrator must know of runs before it reads their journals.
select id, org_id, workflow_id, version, status, trigger_node, input::text, input_ref
from permaflow.run
where id = any(%s);

-- name: load_rows
-- The journals of those runs that are open, each in order. It names the statuses of the others, because the
-- planner knows no index of them: on a young table it would read all open runs instead of looking the ids up.
select run_id, seq, entries::text
from permaflow.run join permaflow.journal on run_id = run.id
where run.id = any(%s) and status not in ('completed', 'failed', 'cancelled', 'timed_out', 'compensated')
order by run_id, seq;

-- name: sizes
-- How many bytes the journals of runs have, and their inputs.
select run.id, coalesce(octet_length(run.input::text), 0)
  + coalesce((select sum(octet_length(entries::text)) from permaflow.journal where run_id = run.id), 0)
from permaflow.run
where run.id = any(%s);

-- name: append
-- One row for each run that advanced. A taken (run, seq) fails the whole statement: a conflict.
insert into permaflow.journal (run_id, seq, org_id, entries)
select run_id, seq, org_id, entries::json
from unnest(%b::uuid[], %b::int4[], %b::uuid[], %b::text[]) as row (run_id, seq, org_id, entries);

-- name: append_alone
-- The same, when it is the whole transaction: `appender.py` sends it with numbered parameters.
insert into permaflow.journal (run_id, seq, org_id, entries)
select run_id, seq, org_id, entries::json
from unnest($1::uuid[], $2::int4[], $3::uuid[], $4::text[]) as row (run_id, seq, org_id, entries);

-- name: append_and_finish
-- The same together with the end of some of the runs, in one statement.
with finished as (
  update permaflow.run
  set status = ended.status, error = ended.error::json, finished_at = clock_timestamp()
  from unnest($5::uuid[], $6::text[], $7::text[]) as ended (id, status, error)
  where run.id = ended.id and run.status in ('pending', 'running', 'waiting', 'compensating')
)
insert into permaflow.journal (run_id, seq, org_id, entries)
select run_id, seq, org_id, entries::json
from unnest($1::uuid[], $2::int4[], $3::uuid[], $4::text[]) as row (run_id, seq, org_id, entries);

-- name: finish_runs
-- The end of runs, written once. It asks for the status, not for `finished_at is null`: of that there is a small
-- index, and on a young table the planner would read all of it instead of looking the ids up.
update permaflow.run
set status = ended.status, error = ended.error::json, finished_at = clock_timestamp()
from unnest(%b::uuid[], %b::text[], %b::text[]) as ended (id, status, error)
where run.id = ended.id and run.status in ('pending', 'running', 'waiting', 'compensating');

-- name: set_status
-- Runs that start or stop waiting.
update permaflow.run
set status = changed.status
from unnest(%b::uuid[], %b::text[]) as changed (id, status)
where run.id = changed.id and run.status in ('pending', 'running', 'waiting', 'compensating');

-- name: set_timers
-- Arms timers, by a delay in seconds or at a moment.
insert into permaflow.timer (run_id, key, org_id, due_at)
select run_id, key, org_id,
       coalesce(until::timestamptz, clock_timestamp() + make_interval(secs => delay))
from unnest(%b::uuid[], %b::text[], %b::uuid[], %b::float8[], %b::text[])
  as armed (run_id, key, org_id, delay, until)
on conflict (run_id, key) do update set due_at = excluded.due_at;

-- name: hold_timers
-- Keeps the timers of runs that are paused from being due.
update permaflow.timer set held_at = clock_timestamp() where run_id = any(%s) and held_at is null;

-- name: clear_timers
-- Disarms timers.
delete from permaflow.timer
using unnest(%b::uuid[], %b::text[]) as gone (run_id, key)
where timer.run_id = gone.run_id and timer.key = gone.key;

-- name: put_payloads
-- Values too large for a journal row or a message.
insert into permaflow.payload (id, org_id, run_id, body)
select id, org_id, run_id, body
from unnest(%b::uuid[], %b::uuid[], %b::uuid[], %b::bytea[]) as large (id, org_id, run_id, body)
on conflict (id) do nothing;

-- name: get_payloads
-- Large values by their references.
select id, body from permaflow.payload where id = any(%s);

-- name: payload_sizes
-- How large they are, without reading them.
select id, octet_length(body) from permaflow.payload where id = any(%s);

-- name: live_leases
-- Attempts of steps of these runs that some runner still holds, and may.
select run_id, step, attempt from permaflow.lease
where run_id = any(%s) and until > statement_timestamp() and deadline > statement_timestamp();
