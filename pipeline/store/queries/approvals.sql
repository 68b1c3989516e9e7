-- name: ask
-- Puts approvals to those whom their terms name. Who started the run is the requester, unless the terms name another.
with asked as (
  select id, run_id, scope, node, attempt, org_id, config::json as terms
  from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int4[], %b::uuid[], %b::text[])
    as row (id, run_id, scope, node, attempt, org_id, config)
), put as (
  insert into permaflow.approval (id, org_id, run_id, scope, node, attempt, to_all, requester, terms, next_at, expires_at)
  select asked.id, asked.org_id, run_id, scope, node, attempt, (terms->>'to_all')::bool,
    coalesce(nullif(terms->>'requester', ''), run.requested_by, ''), terms,
    clock_timestamp(), clock_timestamp() + make_interval(secs => (terms->>'timeout')::float8)
  from asked left join permaflow.run on run.id = asked.run_id
)
insert into permaflow.approval_assignee (approval_id, kind, name, org_id)
select id, 'user', json_array_elements_text(terms->'users'), org_id from asked
union all
select id, 'group', json_array_elements_text(terms->'groups'), org_id from asked;

-- name: withdraw
-- Ends approvals whose steps are over; a conflict if one was decided meanwhile.
select permaflow.close_approvals(%b::uuid[], %b::text[], %b::text[], %b::int4[], %b::bool[]);

-- name: end
-- Ends all approvals of these runs.
with ended as (
  update permaflow.approval
  set status = 'withdrawn', closed_at = clock_timestamp(), next_at = null
  where run_id = any(%b::uuid[]) and status = 'pending'
  returning id
)
update permaflow.approval_assignee set is_open = false from ended where approval_id = ended.id;

-- name: get
-- One approval.
select id, org_id as org, run_id, scope, node, attempt, status, requester, terms, reminders, level, asked_at, expires_at,
  closed_at, closed_by, held_at is null and coalesce(expires_at <= clock_timestamp(), false) as is_late
from permaflow.approval
where id = %(id)s and org_id = %(org)s;

-- name: lock
-- One approval, which nobody else decides about until the end of the transaction.
select id, org_id as org, run_id, scope, node, attempt, status, requester, terms, reminders, level, asked_at, expires_at,
  closed_at, closed_by, held_at is null and coalesce(expires_at <= clock_timestamp(), false) as is_late
from permaflow.approval
where id = %(id)s and org_id = %(org)s
for no key update;

-- name: pending
-- Open approvals, those of the newest runs first, from below `before` on.
select id, org_id as org, run_id, scope, node, attempt, status, requester, terms, reminders, level, asked_at, expires_at,
  closed_at, closed_by, held_at is null and coalesce(expires_at <= clock_timestamp(), false) as is_late
from permaflow.approval
where org_id = %(org)s and status = 'pending'
  and (%(before)s::uuid is null or id < %(before)s)
  and (%(run)s::uuid is null or run_id = %(run)s)
order by id desc
limit %(limit)s;

-- name: pending_of
-- Open approvals that wait for one person, in the same order.
with asked as (
  select approval_id from permaflow.approval_assignee
  where org_id = %(org)s and kind = 'user' and name = %(person)s and is_open
  union
  select approval_id from permaflow.user_group_member
  join permaflow.approval_assignee on approval_assignee.org_id = user_group_member.org_id
    and kind = 'group' and name = group_name and is_open
  where user_group_member.org_id = %(org)s and person = %(person)s
  union
  select id from permaflow.approval where org_id = %(org)s and status = 'pending' and to_all
)
select id, org_id as org, run_id, scope, node, attempt, status, requester, terms, reminders, level, asked_at, expires_at,
  closed_at, closed_by, held_at is null and coalesce(expires_at <= clock_timestamp(), false) as is_late
from permaflow.approval
where id = any(array(select approval_id from asked)) and org_id = %(org)s and status = 'pending'
  and (%(before)s::uuid is null or id < %(before)s)
  and (%(run)s::uuid is null or run_id = %(run)s)
  and (requester <> %(person)s or (terms->>'self_approval')::bool)
  and not exists (select from permaflow.approval_assignee where approval_id = approval.id and kind = 'away'
    and name = %(person)s)
  and not exists (select from permaflow.approval_event where approval_id = approval.id
    and kind in ('approve', 'reject') and person = %(person)s)
order by id desc
limit %(limit)s;

-- name: people
-- Whom an approval asks now, the members of its groups one by one, and who handed over (`away`).
select name as person, kind
from permaflow.approval_assignee
where approval_id = %(id)s and kind <> 'group'
union
select person, 'user'
from permaflow.approval_assignee
join permaflow.user_group_member on user_group_member.org_id = approval_assignee.org_id and group_name = name
where approval_id = %(id)s and kind = 'group';

-- name: events
-- What was done about an approval, in order.
select kind, person, details, comment, via, at
from permaflow.approval_event
where approval_id = %(id)s
order by at, id;

-- name: add_event
-- Notes what was done.
insert into permaflow.approval_event (id, org_id, approval_id, kind, person, details, comment, via)
values (%(id)s, %(org)s, %(approval)s, %(kind)s, %(person)s, %(details)s::json, %(comment)s, %(via)s);

-- name: add_people
-- Asks further people.
insert into permaflow.approval_assignee (approval_id, kind, name, org_id)
select %(id)s, kind, name, %(org)s from unnest(%(kinds)s::text[], %(names)s::text[]) as row (kind, name)
on conflict do nothing;

-- name: close
-- Ends an approval that was decided.
with closed as (
  update permaflow.approval
  set status = %(status)s, closed_at = clock_timestamp(), closed_by = %(by)s, next_at = null
  where id = %(id)s and status = 'pending'
  returning id
)
update permaflow.approval_assignee set is_open = false from closed where approval_id = closed.id;

-- name: hold
-- Keeps the open approvals of a run that is paused from being told, reminded of, escalated or too late.
update permaflow.approval set held_at = clock_timestamp(), next_at = null
where run_id = %(id)s and org_id = %(org)s and status = 'pending' and held_at is null;

-- name: release
-- Lets their time go on where it was; the clock looks at once when to come back.
update permaflow.approval set held_at = null, held_for = held_for + (clock_timestamp() - held_at),
  expires_at = expires_at + (clock_timestamp() - held_at), next_at = clock_timestamp()
where run_id = %(id)s and org_id = %(org)s and status = 'pending' and held_at is not null;

-- name: due
-- Approvals that somebody is to be told or reminded of, or that are to be escalated; each to one caller at a time. What
-- counts is how long they were asked without the pauses of their runs.
select id, org_id as org, run_id, node, terms, reminders, level,
  extract(epoch from clock_timestamp() - asked_at - held_for)::float8 as elapsed
from permaflow.approval
where next_at <= statement_timestamp()
order by next_at
limit %(limit)s
for no key update skip locked;

-- name: waiting
-- Those who may decide about these approvals and have not, one by one; nobody of those that are put to all.
select approval.id as approval, asked.person
from unnest(%(ids)s::uuid[]) as due (id) join permaflow.approval on approval.id = due.id
cross join lateral (
  select name as person from permaflow.approval_assignee where approval_id = approval.id and kind = 'user'
  union
  select person from permaflow.approval_assignee
  join permaflow.user_group_member on user_group_member.org_id = approval_assignee.org_id and group_name = name
  where approval_id = approval.id and kind = 'group'
) as asked
where not to_all and (requester <> person or (terms->>'self_approval')::bool)
  and not exists (select from permaflow.approval_assignee where approval_id = approval.id and kind = 'away'
    and name = person)
  and not exists (select from permaflow.approval_event where approval_id = approval.id
    and kind in ('approve', 'reject') and approval_event.person = asked.person);

-- name: advance
-- How far the reminders and escalations of approvals are, and when the next is due, in seconds since they were asked.
update permaflow.approval
set reminders = now.reminders, level = now.level, next_at = asked_at + held_for + make_interval(secs => now.next)
from unnest(%(ids)s::uuid[], %(reminders)s::int4[], %(levels)s::int4[], %(nexts)s::float8[])
  as now (id, reminders, level, next)
where approval.id = now.id;

-- name: wake
-- Lets an open approval be looked at now, or once its run is no longer paused.
update permaflow.approval set next_at = clock_timestamp()
where id = %(id)s and status = 'pending' and held_at is null;

-- name: wait
-- Seconds until the next is due; below 0 if it is overdue.
select extract(epoch from min(next_at) - clock_timestamp())::float8 from permaflow.approval where next_at is not null;

-- name: prune
-- Forgets approvals that were closed before the cutoff, so many at a time, with all that was done about them.
delete from permaflow.approval where id in (
  select id from permaflow.approval where closed_at < %(cutoff)s order by closed_at limit %(limit)s);
