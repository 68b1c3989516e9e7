-- name: renew
-- Takes or prolongs leases. A lease that somebody else still holds for the same or a later attempt stays
-- theirs; it is missing from the answer. Of several attempts of one step the last one counts: an earlier one that
-- does not end must not keep all others of its runner from being prolonged.
insert into permaflow.lease as lease (run_id, step, attempt, org_id, holder, until, deadline)
select distinct on (run_id, step) run_id, step, attempt, org_id, %(holder)s,
  statement_timestamp() + make_interval(secs => %(duration)s),
  clock_timestamp() + make_interval(secs => remaining)
from unnest(%(run_ids)s::uuid[], %(steps)s::text[], %(attempts)s::int4[], %(orgs)s::uuid[], %(remaining)s::float8[])
  as held (run_id, step, attempt, org_id, remaining)
order by run_id, step, attempt desc
on conflict (run_id, step) do update
set attempt = excluded.attempt, holder = excluded.holder, until = excluded.until, deadline = excluded.deadline
where lease.attempt < excluded.attempt
  or (lease.attempt = excluded.attempt and (lease.holder = excluded.holder or lease.until < statement_timestamp()))
returning run_id, step;

-- name: drop
-- Gives leases back.
delete from permaflow.lease
using unnest(%(run_ids)s::uuid[], %(steps)s::text[], %(attempts)s::int4[]) as held (run_id, step, attempt)
where lease.run_id = held.run_id and lease.step = held.step and lease.attempt = held.attempt
  and lease.holder = %(holder)s;

-- name: lapsed
-- Leases whose holder has been silent, and first those whose step has outlived its deadline.
select run_id, step, attempt, org_id as org, holder, until < statement_timestamp() as is_lost
from permaflow.lease
where until < statement_timestamp() or deadline < statement_timestamp()
order by until < statement_timestamp(), run_id, step
limit %(limit)s;

-- name: sweep
-- Removes leases that lapsed long ago.
delete from permaflow.lease where until < statement_timestamp() - make_interval(secs => %(after)s);

-- name: claim
-- Claims an attempt, or says who has: `age` in seconds, and whether another runner holds a lease of it. A claim that
-- another makes at this moment is not seen yet, and is as new as can be.
with mine as (
  insert into permaflow.claim as claim (run_id, scope, node, attempt, org_id, token)
  values (%(run_id)s, %(scope)s, %(node)s, %(attempt)s, %(org)s, %(token)s)
  on conflict (run_id, scope, node, attempt) do update set token = excluded.token
  where claim.token = excluded.token
  returning token
)
select exists (select from mine) as mine,
  coalesce((select extract(epoch from statement_timestamp() - at)::float8 from permaflow.claim
    where run_id = %(run_id)s and scope = %(scope)s and node = %(node)s and attempt = %(attempt)s), 0) as age,
  exists (select from permaflow.lease
    where run_id = %(run_id)s and step = %(scope)s || '/' || %(node)s and attempt = %(attempt)s
      and holder <> %(holder)s and until > statement_timestamp() and deadline > statement_timestamp()) as leased;
