-- name: copy_payloads
-- Gives a run copies of values of another, which may be dropped before it. Answers the ids of the copies.
insert into permaflow.payload (id, org_id, run_id, body)
select copy_id, org_id, %(run_id)s, body
from unnest(%(ids)s::uuid[], %(copies)s::uuid[]) as wanted (wanted_id, copy_id)
join permaflow.payload on id = wanted_id
where org_id = %(org)s
returning id;

-- name: asked_below
-- One of the named steps of a run, or of those that it repeats, whose child or a run below it asked people. A child
-- that is no longer kept counts as one, and so does every step if a run that was repeated is no longer kept.
with recursive again as (
  select id, rerun_of from permaflow.run where id = %(id)s and org_id = %(org)s
  union
  select run.id, run.rerun_of from again join permaflow.run on run.id = again.rerun_of
), child as materialized (
  select entry ->> 2 as node, (entry ->> 5)::uuid as id
  from again join permaflow.journal on journal.run_id = again.id
  cross join lateral json_array_elements(entries) as entry
  where position('"child"' in entries::text) > 0 and entry ->> 0 = 'asked' and entry ->> 4 = 'child'
    and entry ->> 2 = any(%(nodes)s)
), below as (
  select node, id from child
  union
  select node, run.id from below join permaflow.run on run.parent_id = below.id
)
select node from below
where not exists (select from permaflow.run where run.id = below.id) or exists (
  select from permaflow.journal cross join lateral json_array_elements(entries) as entry
  where journal.run_id = below.id and position('"approval"' in entries::text) > 0
    and entry ->> 0 = 'asked' and entry ->> 4 = 'approval')
union all
select wanted from unnest(%(nodes)s::text[]) as wanted
where exists (
  select from again where rerun_of is not null
    and not exists (select from permaflow.run as before where before.id = again.rerun_of))
order by node
limit 1;
