-- name: of
-- What the runs of workflows came to: those that are counted, and those that are still open.
select workflow.id as workflow_id,
  coalesce(run_count, 0) + open_count + uncounted_count as run_count,
  coalesce(success_count, 0) + uncounted_success_count as success_count,
  coalesce(failure_count, 0) + uncounted_count - uncounted_success_count as failure_count,
  open_count,
  greatest(last_run_at, newest_at) as last_run_at
from permaflow.workflow
left join permaflow.workflow_stats on workflow_stats.workflow_id = workflow.id
cross join lateral (
  select count(*) as open_count from permaflow.run
  where run.workflow_id = workflow.id and finished_at is null
) as open
cross join lateral (
  select count(*) as uncounted_count, count(*) filter (where status = 'completed') as uncounted_success_count
  from permaflow.run
  where run.workflow_id = workflow.id and finished_at is not null and settled_at is null
) as uncounted
left join lateral (
  select created_at as newest_at from permaflow.run
  where run.workflow_id = workflow.id order by id desc limit 1
) as newest on true
where workflow.org_id = %(org)s and workflow.id = any(%(ids)s);

-- name: unsettled
-- Finished runs that are not counted yet, oldest first.
select id from permaflow.run
where finished_at is not null and settled_at is null
order by id
limit %(limit)s;

-- name: settle
-- Counts finished runs into their workflows. Rows are locked in the order of their ids; a run that
-- somebody else counts at this moment is left to them.
with mine as materialized (
  select id from permaflow.run
  where id = any(%(ids)s) and finished_at is not null and settled_at is null
  order by id
  for update skip locked
), settled as (
  update permaflow.run set settled_at = clock_timestamp()
  from mine where run.id = mine.id
  returning run.id, run.workflow_id, run.org_id, run.status, run.created_at
), counted as (
  insert into permaflow.workflow_stats as stats
    (workflow_id, org_id, run_count, success_count, failure_count, last_run_at)
  select workflow_id, org_id, count(*), count(*) filter (where status = 'completed'),
    count(*) filter (where status <> 'completed'), max(created_at)
  from settled
  group by workflow_id, org_id
  order by workflow_id
  on conflict (workflow_id) do update set
    run_count = stats.run_count + excluded.run_count,
    success_count = stats.success_count + excluded.success_count,
    failure_count = stats.failure_count + excluded.failure_count,
    last_run_at = greatest(stats.last_run_at, excluded.last_run_at)
)
select id from settled;

-- name: typical
-- How long the completed ones among the newest runs of a workflow took: the median. Looks at 200 at most.
select percentile_cont(0.5) within group (order by extract(epoch from finished_at - created_at)::float8)
from (
  select status, created_at, finished_at from permaflow.run
  where workflow_id = %(id)s and org_id = %(org)s order by id desc limit 200
) as newest
where status = 'completed';

-- name: by_status
-- Counts and durations by type and status, of the runs of an organisation in a span of time.
select type, status, count(*) as count,
  avg(extract(epoch from finished_at - created_at))::float8 as mean_seconds,
  (percentile_cont(0.95) within group (order by extract(epoch from finished_at - created_at)))::float8 as p95_seconds
from permaflow.run
where org_id = %(org)s
  and (%(since)s::timestamptz is null
    or (created_at >= %(since)s
      and id >= permaflow.uuid_at(greatest(%(since)s::timestamptz - interval '1 day', 'epoch'))))
  and (%(until)s::timestamptz is null
    or (created_at < %(until)s and id < permaflow.uuid_at(%(until)s::timestamptz + interval '1 day')))
group by type, status
order by type, status;

-- name: ended
-- What there is to tell of finished runs that are not counted yet.
select id, org_id as org, workflow_id, version, status, source, created_at, finished_at, reopened, error
from permaflow.run
where id = any(%(ids)s) and finished_at is not null and settled_at is null
order by id;
