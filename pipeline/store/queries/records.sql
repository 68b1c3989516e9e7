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
