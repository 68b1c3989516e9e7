-- name: put
-- Makes a group, or gives it other members; `is_new` tells which.
insert into permaflow.user_group (org_id, name) values (%(org)s, %(name)s)
on conflict (org_id, name) do update set updated_at = clock_timestamp()
returning created_at, updated_at, xmax = 0 as is_new;

-- name: remove_members
-- Takes those out of a group who are not in the list.
delete from permaflow.user_group_member
where org_id = %(org)s and group_name = %(name)s and person <> all(%(people)s::text[]);

-- name: add_members
-- Takes people into a group.
insert into permaflow.user_group_member (org_id, group_name, person)
select %(org)s, %(name)s, person from unnest(%(people)s::text[]) as person
on conflict do nothing;

-- name: get
-- A group with its members.
select name, created_at, updated_at,
  array(select person from permaflow.user_group_member
    where user_group_member.org_id = user_group.org_id and group_name = name order by person) as members
from permaflow.user_group
where org_id = %(org)s and name = %(name)s;

-- name: list
-- The groups of an organisation by name, from after `after` on.
select name, created_at, updated_at,
  array(select person from permaflow.user_group_member
    where user_group_member.org_id = user_group.org_id and group_name = name order by person) as members
from permaflow.user_group
where org_id = %(org)s and (%(after)s::text is null or name > %(after)s)
order by name
limit %(limit)s;

-- name: delete
-- Removes a group with its memberships.
delete from permaflow.user_group where org_id = %(org)s and name = %(name)s;
