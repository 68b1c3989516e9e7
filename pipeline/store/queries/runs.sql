-- name: get
-- One run without its journal.
select id, org_id, workflow_id, version, status, source, trigger_node, input, input_ref, type, resource_type,
  resource_id, requested_by, parent_id, created_at, finished_at, cancel_at, cancel_by, error,
  reopened, rerun_of, paused_at, paused_by
from permaflow.run
where id = %(id)s and org_id = %(org)s;

-- name: list
-- The runs of an organisation that match, newest first, from below `before` on. The ids carry the time of
-- the caller's clock and `created_at` that of the database; a day between them is allowed for.
select id, org_id, workflow_id, version, status, source, trigger_node, null::json as input, input_ref, type,
  resource_type, resource_id, requested_by, parent_id, created_at, finished_at, cancel_at, cancel_by, error,
  reopened, rerun_of, paused_at, paused_by
from permaflow.run
where org_id = %(org)s
  and (%(before)s::uuid is null or id < %(before)s)
  and (%(workflow_id)s::uuid is null or workflow_id = %(workflow_id)s)
  and (%(statuses)s::text[] is null or status = any(%(statuses)s))
  and (%(type)s::text is null or type = %(type)s)
  and (%(resource_type)s::text is null or resource_type = %(resource_type)s)
  and (%(resource_id)s::text is null or resource_id = %(resource_id)s)
  and (%(requested_by)s::text is null or requested_by = %(requested_by)s)
  and (%(parent_id)s::uuid is null or parent_id = %(parent_id)s)
  and (not %(by_event)s::bool or (parent_id is null and rerun_of is null))
  and (%(since)s::timestamptz is null
    or (created_at >= %(since)s
      and id >= permaflow.uuid_at(greatest(%(since)s::timestamptz - interval '1 day', 'epoch'))))
  and (%(until)s::timestamptz is null
    or (created_at < %(until)s and id < permaflow.uuid_at(%(until)s::timestamptz + interval '1 day')))
order by id desc
limit %(limit)s;

-- name: journal
-- What happened to a run, from after `after` on.
select seq, at, entries
from permaflow.journal
where run_id = %(id)s and org_id = %(org)s and seq > %(after)s
order by seq
limit %(limit)s;

-- name: cancel
-- Remembers that somebody wants an open run to end; the first to ask is kept. One that is undone is ending.
update permaflow.run
set cancel_at = coalesce(cancel_at, clock_timestamp()), cancel_by = coalesce(cancel_by, %(by)s)
where id = %(id)s and org_id = %(org)s and finished_at is null and status <> 'compensating'
returning id;

-- name: cancelled
-- Open runs that somebody wants to end, for more than `after` seconds, and that have not been told.
select id, cancel_by as by, org_id as org, reopened
from permaflow.run
where cancel_at < statement_timestamp() - make_interval(secs => %(after)s) and finished_at is null
  and status <> 'compensating'
order by id
limit %(limit)s;

-- name: silent
-- Running runs that nothing has happened to for `after` seconds, from above `above` on. `seq` is their last row, 0 if
-- there is none; `leased`: a runner holds a step of theirs, but perhaps not the only one. A run that is undone takes
-- one step at a time: if that is to be tried again later, nothing else can have got lost.
select run.id, coalesce(last.seq, 0) as seq, run.org_id as org,
       extract(epoch from clock_timestamp() - coalesce(last.at, run.created_at))::float8 as seconds,
       exists (select from permaflow.lease where lease.run_id = run.id and until > statement_timestamp()
         and deadline > statement_timestamp()) as leased
from permaflow.run
left join lateral (
  select seq, at from permaflow.journal where run_id = run.id order by seq desc limit 1
) as last on true
where run.status in ('pending', 'running', 'compensating')
  and (run.status <> 'compensating' or not exists (select from permaflow.timer where timer.run_id = run.id))
  and run.id > %(above)s and run.id < permaflow.uuid_at(statement_timestamp() - make_interval(secs => %(after)s))
  and coalesce(last.at, run.created_at) < statement_timestamp() - make_interval(secs => %(after)s)
order by run.id
limit %(limit)s;

-- name: glance
-- Whether there is anything for the reconciler to look at, in one statement.
select exists (select from permaflow.run where status in ('pending', 'running', 'compensating')) as running,
       exists (select from permaflow.run where cancel_at is not null and finished_at is null
         and status <> 'compensating') as cancelled,
       exists (select from permaflow.run where finished_at is not null and settled_at is null) as unsettled,
       exists (select from permaflow.lease) as leased,
       exists (select from permaflow.answer) as answered;
