-- name: add
-- A notification for each user who does not have it yet; answers for whom it is new.
with wanted as (
  select id, user_name from unnest(%(ids)s::uuid[], %(users)s::text[]) as new (id, user_name)
), missing as (
  select id, user_name from wanted
  where not exists (select from permaflow.notification n where n.org_id = %(org)s and n.id = wanted.id)
  order by user_name
), box as (
  insert into permaflow.notification_box (org_id, user_name, last_seq)
  select %(org)s, user_name, 1 from missing order by user_name
  on conflict (org_id, user_name) do update set last_seq = notification_box.last_seq + 1
  returning user_name, last_seq
)
insert into permaflow.notification (org_id, id, user_name, seq, title, description, link, data, run_id)
select %(org)s, id, user_name, last_seq, %(title)s, %(description)s, %(link)s, %(data)s::json, %(run_id)s
from missing join box using (user_name)
on conflict (org_id, id) do nothing
returning user_name;

-- name: after
-- What a user got after a notification, in order.
select id, seq, title, description, link, data, run_id, at, read_at
from permaflow.notification
where org_id = %(org)s and user_name = %(user)s and seq > %(after)s
order by seq
limit %(limit)s;

-- name: unread
-- What a user has not read, in order, from after a notification on.
select id, seq, title, description, link, data, run_id, at, read_at
from permaflow.notification
where org_id = %(org)s and user_name = %(user)s and seq > %(after)s and read_at is null
order by seq
limit %(limit)s;

-- name: list
-- What a user got, newest first, from below `before` on.
select id, seq, title, description, link, data, run_id, at, read_at
from permaflow.notification
where org_id = %(org)s and user_name = %(user)s
  and (%(before)s::int8 is null or seq < %(before)s)
  and (not %(unread)s or read_at is null)
order by seq desc
limit %(limit)s;

-- name: last
-- The number of the last notification that a user got.
select coalesce(max(seq), 0) from permaflow.notification where org_id = %(org)s and user_name = %(user)s;

-- name: mark
-- Marks one as read; the time of the first call is kept.
update permaflow.notification set read_at = coalesce(read_at, clock_timestamp())
where org_id = %(org)s and user_name = %(user)s and id = %(id)s;

-- name: mark_all
-- Marks as read what a user got up to a notification.
update permaflow.notification set read_at = clock_timestamp()
where org_id = %(org)s and user_name = %(user)s and seq <= %(upto)s and read_at is null;

-- name: prune
-- Removes notifications older than the cutoff, so many at a time.
delete from permaflow.notification where (org_id, id) in (
  select org_id, id from permaflow.notification where at < %(cutoff)s order by at limit %(limit)s);
