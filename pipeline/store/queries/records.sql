-- name: tell_cause
-- Tell whoever reads the log which run makes the changes of this transaction.
select pg_logical_emit_message(true, 'permaflow.cause', %(run_id)s);

-- name: insert
-- A new record; nothing if it is there.
insert into permaflow.record (org_id, object, id, data)
values (%(org)s, %(object)s, %(id)s, %(data)s::jsonb)
on conflict do nothing
returning id, object, data, version, created_at, updated_at;

-- name: get
-- One record.
select id, object, data, version, created_at, updated_at
from permaflow.record
where org_id = %(org)s and object = %(object)s and id = %(id)s;

-- name: update
-- Merges fields into a record, or replaces them all.
update permaflow.record
set data = case when %(merge)s then data || %(data)s::jsonb else %(data)s::jsonb end,
    version = version + 1, updated_at = clock_timestamp()
where org_id = %(org)s and object = %(object)s and id = %(id)s
  and (%(expected)s::int8 is null or version = %(expected)s)
returning id, object, data, version, created_at, updated_at;

-- name: delete
-- Removes a record, if its version is the expected one.
delete from permaflow.record
where org_id = %(org)s and object = %(object)s and id = %(id)s
  and (%(expected)s::int8 is null or version = %(expected)s);

-- name: objects
-- The objects that have records, one step through the primary key for each.
with recursive found as (
  (select object from permaflow.record where org_id = %(org)s order by object limit 1)
  union all
  select (select record.object from permaflow.record
          where record.org_id = %(org)s and record.object > found.object order by record.object limit 1)
  from found where found.object is not null
)
select object from found where object is not null limit %(limit)s;

-- name: attributes
-- The names that the data of some records of an object have.
select distinct name
from (
  select data from permaflow.record
  where org_id = %(org)s and object = %(object)s and jsonb_typeof(data) = 'object'
  order by id desc limit %(sample)s
) as sampled, jsonb_object_keys(sampled.data) as name
order by name
limit %(limit)s;

-- name: list
-- Records of an object by id, from above `after` on.
select id, object, data, version, created_at, updated_at
from permaflow.record
where org_id = %(org)s and object = %(object)s and id > %(after)s
order by id
limit %(limit)s;

-- name: turn
-- The next number of a rotation, from 0, and the same number again for the same key. A rotation is
-- a record; it remembers the keys of its last 100 turns.
insert into permaflow.record as r (org_id, object, id, data)
values (
  %(org)s, %(object)s, %(id)s,
  jsonb_build_object('next', 1, 'turns', jsonb_build_object(%(key)s::text, 0))
)
on conflict (org_id, object, id) do update
set data = r.data || jsonb_build_object(
      'next', coalesce((r.data ->> 'next')::int8, 0) + 1,
      'turns',
      coalesce(
        (
          select jsonb_object_agg(turn.key, turn.value)
          from jsonb_each(r.data -> 'turns') as turn
          where turn.value::int8 > coalesce((r.data ->> 'next')::int8, 0) - 100
        ),
        '{}'
      ) || jsonb_build_object(%(key)s::text, coalesce((r.data ->> 'next')::int8, 0))
    ),
    version = r.version + 1, updated_at = clock_timestamp()
where not coalesce(r.data -> 'turns', '{}') ? %(key)s::text
returning (data -> 'turns' ->> %(key)s::text)::int8 as number;

-- name: turn_taken
-- The number that a key has got of a rotation.
select (data -> 'turns' ->> %(key)s::text)::int8 as number
from permaflow.record
where org_id = %(org)s and object = %(object)s and id = %(id)s;

-- name: query
-- Records of an object that pass every filter, in the order of up to two fields, then of their ids.
select id, object, data, version, created_at, updated_at
from permaflow.record
cross join lateral (
  select data || jsonb_build_object(
    '$id', id, '$version', version, '$created_at', created_at, '$updated_at', updated_at) as whole
) as shown
where org_id = %(org)s and object = %(object)s and not exists (
  select from jsonb_to_recordset(%(filters)s::jsonb) as f (path text[], op text, value jsonb)
  cross join lateral (
    select coalesce(whole #> f.path, 'null') as v, jsonb_typeof(whole #> f.path) as kind, coalesce(f.value, 'null') as wanted
  ) as found
  where not coalesce(
    case f.op
      when 'eq' then v = wanted
      when 'ne' then v <> wanted
      when 'gt' then kind = jsonb_typeof(wanted) and v > wanted
      when 'gte' then kind = jsonb_typeof(wanted) and v >= wanted
      when 'lt' then kind = jsonb_typeof(wanted) and v < wanted
      when 'lte' then kind = jsonb_typeof(wanted) and v <= wanted
      when 'in' then exists (select from jsonb_array_elements(wanted) as e (item) where item = v)
      when 'not_in' then not exists (select from jsonb_array_elements(wanted) as e (item) where item = v)
      when 'contains' then case kind
        when 'array' then exists (select from jsonb_array_elements(v) as e (item) where item = wanted)
        when 'string' then jsonb_typeof(wanted) = 'string' and strpos(v #>> '{}', wanted #>> '{}') > 0
        when 'object' then jsonb_typeof(wanted) = 'string' and v ? (wanted #>> '{}')
      end
      when 'starts_with' then kind = 'string' and jsonb_typeof(wanted) = 'string'
        and starts_with(v #>> '{}', wanted #>> '{}')
      when 'exists' then v <> 'null'
      when 'not_exists' then v = 'null'
    end, false)
)
order by
  case when not %(down_1)s then nullif(whole #> %(sort_1)s::text[], 'null') end nulls last,
  case when %(down_1)s then nullif(whole #> %(sort_1)s::text[], 'null') end desc nulls last,
  case when not %(down_2)s then nullif(whole #> %(sort_2)s::text[], 'null') end nulls last,
  case when %(down_2)s then nullif(whole #> %(sort_2)s::text[], 'null') end desc nulls last,
  id
limit %(limit)s;
