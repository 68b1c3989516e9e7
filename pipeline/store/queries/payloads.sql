-- name: put
-- Values too large for a row of the journal or a message; one that is there stays.
insert into permaflow.payload (id, org_id, run_id, body)
select id, org_id, run_id, body
from unnest(%(ids)b::uuid[], %(orgs)b::uuid[], %(run_ids)b::uuid[], %(bodies)b::bytea[])
  as large (id, org_id, run_id, body)
on conflict (id) do nothing;

-- name: get
-- Values by their references.
select id, body from permaflow.payload where id = any(%(ids)b::uuid[]);

-- name: small
-- Values by their references, none of more than `most` bytes, and no more than `together` bytes of them.
select id, body
from (
  select id, body, sum(octet_length(body)) over (order by id) as so_far
  from permaflow.payload
  where id = any(%(ids)b::uuid[]) and octet_length(body) <= %(most)b::bigint
) as small
where so_far <= %(together)b::bigint;
