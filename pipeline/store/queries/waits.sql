-- name: ask
-- Begins to wait for changes. Gives the answers of those that do not say of which record: there is no default unless
-- the run has a resource, and of that object.
with asked as materialized (
  select id, run_id, scope, node, attempt, org_id, config::json as config
  from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int4[], %b::uuid[], %b::text[])
    as row (id, run_id, scope, node, attempt, org_id, config)
), wanted as materialized (
  select asked.*, coalesce(config ->> 'object', resource_type, '') as object,
    coalesce(config ->> 'record_id', case
      when config ->> 'object' is null or regexp_replace(config ->> 'object', '^.*\.', '') = resource_type
      then resource_id end, '') as record_id
  from asked left join permaflow.run on run.id = asked.run_id
), begun as (
  insert into permaflow.change_wait (question_id, org_id, object, record_id, conditions)
  select id, org_id, object, record_id, config -> 'conditions' from wanted
  where length(object) between 1 and 500 and length(record_id) between 1 and 500
)
insert into permaflow.answer (question_id, org_id, run_id, scope, node, attempt, code, message)
select id, org_id, run_id, scope, node, attempt, 'no_record', case
  when object = '' or record_id = '' then 'It is not known which record to wait for: give `object` and `record_id`.'
  else 'The name of an object and the id of a record have at most 500 characters.' end
from wanted
where not (length(object) between 1 and 500 and length(record_id) between 1 and 500)
returning question_id, org_id, run_id, scope, node, attempt, output::text, output_ref, port, code, message, retryable,
  details::text;

-- name: withdraw
-- Ends waits.
with gone (run_id, scope, node, attempt, answered) as (
  select * from unnest(%b::uuid[], %b::text[], %b::text[], %b::int4[], %b::bool[])
)
delete from permaflow.change_wait
using gone join permaflow.question using (run_id, scope, node, attempt)
where question_id = question.id;

-- name: end
-- Ends all waits of runs.
delete from permaflow.change_wait using permaflow.question
where question.run_id = any(%b::uuid[]) and question_id = question.id;

-- name: glance
-- The generation of the triggers, whether a wait has begun that nobody has looked at, and for which of these objects
-- somebody waits.
select value as generation, exists (select from permaflow.change_wait where not looked) as begun,
  array(select name from unnest(%(objects)s::text[]) as wanted (name)
    where exists (select from permaflow.change_wait where object = name)) as objects
from permaflow.generation;

-- name: of_records
-- The waits for these records; `since` in milliseconds.
select question_id, org_id as org, object, record_id, conditions, floor(extract(epoch from since) * 1000)::int8 as since
from unnest(%(objects)s::text[], %(ids)s::text[]) as changed (name, id)
join permaflow.change_wait on object = name and record_id = id;

-- name: begun
-- Waits that nobody has looked at since they began, and the built-in record that they are about, if there is one.
select question_id, change_wait.org_id as org, change_wait.object, record_id, conditions, record.data as record
from permaflow.change_wait
left join permaflow.record on record.org_id = change_wait.org_id and record.id = record_id
  and record.object = regexp_replace(change_wait.object, '^records\.', '')
where not looked
order by question_id
limit %(limit)s;

-- name: looked
-- These waits need no further look: from here on changes are told of.
update permaflow.change_wait set looked = true where question_id = any(%(ids)s) and not looked;

-- name: look_again
-- Something about these records was told too late to say how they are now.
update permaflow.change_wait set looked = false where question_id = any(%(ids)s) and looked;

-- name: look_at_all
-- Changes were lost.
update permaflow.change_wait set looked = false where looked;

-- name: objects
-- What runs wait for changes of, by index: there may be many waits for each.
with recursive name (object) as (
  (select object from permaflow.change_wait order by object limit 1)
  union all
  select (select object from permaflow.change_wait where object > name.object order by object limit 1)
  from name where object is not null
)
select object from name where object is not null;
