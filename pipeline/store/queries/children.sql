-- name: ask
-- Starts the runs that runs ask for, in the transaction of those. Gives the answers that are known at once: why one
-- cannot be started, and the id of one whose end nobody waits for. Inputs above 32,000 bytes are kept apart.
with recursive asked as materialized (
  select id, run_id, scope, node, attempt, org_id, config::json as config
  from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int4[], %b::uuid[], %b::text[])
    as row (id, run_id, scope, node, attempt, org_id, config)
), line (run_id, above, depth) as (
  select distinct run_id, run_id, 1 from asked
  union all
  select line.run_id, run.parent_id, line.depth + 1
  from line join permaflow.run on run.id = line.above
  where run.parent_id is not null and line.depth < 100
), depth as (
  select distinct on (run_id) run_id, depth, above as root from line order by run_id, line.depth desc
), wanted as materialized (
  select asked.*, depth, root, coalesce((config ->> 'max_children')::int8, 100000) as max_children, (config ->> 'max_depth')::int as max_depth, config ->> 'mode' as mode,
    coalesce(config ->> 'workflow_id', config ->> 'workflow') as called,
    case when config ->> 'workflow_id' ~ '^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$'
      then (config ->> 'workflow_id')::uuid end as workflow_id,
    case when config ->> 'workflow_id' is null then config ->> 'workflow' end as name,
    case when config ->> 'version' ~ '^[0-9]{1,9}$' then (config ->> 'version')::int
      when config ->> 'version' is not null and config ->> 'version' <> 'latest' then 0 end as pinned,
    case when coalesce(json_typeof(config -> 'input'), 'null') = 'null' then '{}'::json else config -> 'input' end as input
  from asked join depth using (run_id)
), found as materialized (
  select wanted.id, workflow.id as workflow_id, status, coalesce(pinned, version) as version,
    row_number() over (partition by wanted.id order by status = 'active' desc, workflow.id) as place,
    count(*) over (partition by wanted.id, status) as alike
  from wanted join permaflow.workflow
    on workflow.org_id = wanted.org_id and workflow.deleted_at is null and workflow.id = wanted.workflow_id
  union all
  select wanted.id, workflow.id, status, coalesce(pinned, version),
    row_number() over (partition by wanted.id order by status = 'active' desc, workflow.id),
    count(*) over (partition by wanted.id, status)
  from wanted join permaflow.workflow
    on workflow.org_id = wanted.org_id and workflow.deleted_at is null and workflow.name = wanted.name
), judged as materialized (
  select wanted.*, found.workflow_id as child_id, found.version,
    case
      when depth > max_depth then 'depth_limit'
      when found.id is null then 'workflow_not_found'
      when status <> 'active' then 'workflow_inactive'
      when alike > 1 then 'workflow_ambiguous'
      when not exists (select from permaflow.workflow_version as known
        where known.workflow_id = found.workflow_id and known.version = found.version) then 'version_not_found'
    end as fault,
    status
  from wanted left join found on found.id = wanted.id and place = 1
), counted as (
  insert into permaflow.family (run_id, org_id, size)
  select root, org_id, count(*) from judged where fault is null group by root, org_id order by root
  on conflict (run_id) do update set size = family.size + excluded.size
  returning run_id, size
), numbered as (
  select judged.id, size - count(*) over below + row_number() over (below order by id) as number
  from judged join counted on counted.run_id = root
  where fault is null
  window below as (partition by root)
), chosen as materialized (
  select judged.*, number, case when fault is null and number > max_children then 'child_limit' else fault end as code
  from judged left join numbered on numbered.id = judged.id
), large as (
  insert into permaflow.payload (id, org_id, run_id, body)
  select id, org_id, id, convert_to(input::text, 'UTF8') from chosen
  where code is null and octet_length(input::text) > 32000
), started as (
  insert into permaflow.run (id, org_id, workflow_id, version, status, source, trigger_node, input, input_ref,
    resource_type, resource_id, requested_by, parent_id)
  select chosen.id, chosen.org_id, child_id, chosen.version, 'running', 'workflow',
    coalesce((select min(trigger.node) from permaflow.trigger where trigger.workflow_id = child_id and kind = 'manual'), ''),
    case when octet_length(chosen.input::text) <= 32000 then chosen.input end,
    case when octet_length(chosen.input::text) > 32000 then chosen.id end,
    parent.resource_type, parent.resource_id, parent.requested_by, parent.id
  from chosen join permaflow.run as parent on parent.id = chosen.run_id
  where code is null
)
insert into permaflow.answer (question_id, org_id, run_id, scope, node, attempt, output, code, message)
select id, org_id, run_id, scope, node, attempt, case when code is null then json_build_object('run_id', id) end, code,
  case code
    when 'depth_limit' then format('Sub-workflows may stand %%s deep in each other (PERMAFLOW_MAX_WORKFLOW_DEPTH), and '
      'this would be number %%s.', max_depth, depth)
    when 'child_limit' then format('At most %%s runs may be started below one (PERMAFLOW_MAX_CHILD_RUNS), and this would '
      'be number %%s.', max_children, number)
    when 'workflow_not_found' then format('There is no workflow %%s in this organisation.', left(called, 100))
    when 'workflow_inactive' then format('The workflow %%s is %%s; only an active one is started.', left(called, 100), status)
    when 'workflow_ambiguous' then format('There are several active workflows named %%s; say which by its id.',
      left(called, 100))
    when 'version_not_found' then format('The workflow %%s has no version %%s.', left(called, 100),
      left(config ->> 'version', 100))
    else ''
  end
from chosen where code is not null or mode = 'async'
returning question_id, org_id, run_id, scope, node, attempt, output::text, output_ref, port, code, message, retryable,
  details::text;

-- name: withdraw
-- Asks for the end of the children that their parents no longer wait for, and gives them.
with gone (run_id, scope, node, attempt, answered) as materialized (
  select * from unnest(%b::uuid[], %b::text[], %b::text[], %b::int4[], %b::bool[])
), lost as materialized (
  select run.id
  from gone join permaflow.question using (run_id, scope, node, attempt) join permaflow.run on run.id = question.id
  where run.status in ('pending', 'running', 'waiting', 'compensating') and config ->> 'mode' <> 'async'
  order by run.id
  for no key update of run
)
update permaflow.run
set cancel_at = coalesce(cancel_at, clock_timestamp()), cancel_by = coalesce(cancel_by, 'run:' || parent_id)
from lost where run.id = lost.id
returning run.id, run.org_id;

-- name: end
-- The same for all children that these runs wait for.
update permaflow.run
set cancel_at = coalesce(cancel_at, clock_timestamp()), cancel_by = coalesce(cancel_by, 'run:' || parent_id)
from permaflow.question
where question.run_id = any(%b::uuid[]) and run.id = question.id and kind = 'child' and config ->> 'mode' <> 'async'
  and run.status in ('pending', 'running', 'waiting', 'compensating')
returning run.id, run.org_id;

-- name: ended
-- The finished runs among these that somebody waits for.
select run.id, run.org_id as org, run.parent_id, workflow_id, version, status, trigger_node, input, input_ref, error,
  config -> 'output' as mapping, config ->> 'on_child_failure' as on_failure
from permaflow.run join permaflow.question on question.id = run.id and kind = 'child'
where run.id = any(%(ids)s) and run.parent_id is not null and finished_at is not null;

-- name: journals
-- What happened in runs, in order.
select run_id, entries
from permaflow.journal where run_id = any(%(ids)s)
order by run_id, seq;
