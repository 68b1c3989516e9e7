-- name: start
-- Starts runs: one row for each request whose workflow may be started, `fresh` unless its key is taken.
-- Keys are inserted in order, so that two batches never wait for each other.
with request as materialized (
  select * from unnest(
    %(run_ids)b::uuid[], %(orgs)b::uuid[], %(workflow_ids)b::uuid[], %(versions)b::int4[], %(keys)b::bytea[],
    %(sources)b::text[], %(trigger_nodes)b::text[], %(inputs)b::text[], %(refs)b::uuid[], %(bodies)b::bytea[],
    %(types)b::text[], %(resource_types)b::text[], %(resource_ids)b::text[], %(requesters)b::text[],
    %(parents)b::uuid[], %(inactive)b::bool[], %(reruns)b::uuid[]
  ) with ordinality as row (
    id, org_id, workflow_id, version, key, source, trigger_node, input, input_ref, body, type, resource_type,
    resource_id, requested_by, parent_id, allow_inactive, rerun_of, place)
), ready as materialized (
  select request.id, request.org_id, request.workflow_id, coalesce(request.version, workflow.version) as version, key,
    source, trigger_node, input, input_ref, body, type, resource_type, resource_id, requested_by, parent_id, rerun_of,
    place
  from request join permaflow.workflow on workflow.id = request.workflow_id and workflow.org_id = request.org_id
  where workflow.deleted_at is null
    and (workflow.status = 'active' or (request.allow_inactive and workflow.status <> 'archived'))
    and (request.version is null or exists (
      select from permaflow.workflow_version as known
      where known.workflow_id = workflow.id and known.version = request.version))
), keyed as (
  insert into permaflow.run_key (key, org_id, run_id)
  select key, org_id, id from ready where key is not null order by key, place
  on conflict do nothing
  returning run_id
), fresh as materialized (
  select * from ready where key is null or id in (select run_id from keyed)
), large as (
  insert into permaflow.payload (id, org_id, run_id, body)
  select input_ref, org_id, id, body from fresh where input_ref is not null
), started as (
  insert into permaflow.run (id, org_id, workflow_id, version, status, source, trigger_node, input, input_ref, type,
    resource_type, resource_id, requested_by, parent_id, rerun_of)
  select id, org_id, workflow_id, version, 'running', source, trigger_node, input::json, input_ref, type,
    resource_type, resource_id, requested_by, parent_id, rerun_of
  from fresh
)
select place, ready.version, key is null or id in (select run_id from keyed) as is_fresh from ready;

-- name: known
-- The runs that keys belong to.
select key, run_id from permaflow.run_key where key = any(%(keys)b::bytea[]);

-- name: at_depth
-- Which of these runs stand at the end of a chain of so many that changes started, one by the other. A child belongs to
-- its parent: what it changes, its parent has changed.
with recursive chain (id, cause, depth) as (
  select id, id, 0 from unnest(%(ids)s::uuid[]) as given (id)
  union all
  select chain.id, coalesce(run.parent_id, substr(run.requested_by, 5)::uuid),
    chain.depth + case when run.parent_id is null then 1 else 0 end
  from chain
  join permaflow.run on run.id = chain.cause
  where (run.parent_id is not null or (run.source = 'postgres' and run.requested_by like 'run:%%'))
    and chain.depth < %(depth)s
)
select distinct id from chain where depth >= %(depth)s;
