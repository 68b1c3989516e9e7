-- name: copy_payloads
-- Gives a run copies of values of another, which may be dropped before it. Answers the ids of the copies.
insert into permaflow.payload (id, org_id, run_id, body)
select copy_id, org_id, %(run_id)s, body
from unnest(%(ids)s::uuid[], %(copies)s::uuid[]) as wanted (wanted_id, copy_id)
join permaflow.payload on id = wanted_id
where org_id = %(org)s
returning id;
