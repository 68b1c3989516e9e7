-- name: insert
-- Messages that could not be read.
insert into permaflow.dead_letter (id, org_id, source, position, reason, raw)
select * from unnest(%(ids)b::uuid[], %(orgs)b::uuid[], %(sources)b::text[], %(positions)b::text[], %(reasons)b::text[],
  %(raws)b::bytea[]);

-- name: list
-- Messages that could not be read, newest first, from below `before` on, without their bytes.
select id, org_id as org, source, position, reason, octet_length(raw) as size, at
from permaflow.dead_letter
where (%(org)s::uuid is null or org_id = %(org)s)
  and (%(before)s::uuid is null or id < %(before)s)
  and (%(source)s::text is null or source = %(source)s)
order by id desc
limit %(limit)s;

-- name: raw
-- The bytes of one message.
select raw from permaflow.dead_letter where id = %(id)s;

-- name: delete
-- Removes messages that have been dealt with.
delete from permaflow.dead_letter where id = any(%(ids)s);

-- name: prune
-- Removes messages that nobody has dealt with for too long.
delete from permaflow.dead_letter where id in (
  select id from permaflow.dead_letter where id < permaflow.uuid_at(%(cutoff)s) order by id limit %(limit)s);
