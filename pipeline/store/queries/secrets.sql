-- name: put
-- Sets a secret, new or in the place of the one before.
insert into permaflow.secret (org_id, name, encrypted, updated_by)
values (%(org)s, %(name)s, %(encrypted)b, %(by)s)
on conflict (org_id, name) do update
set encrypted = %(encrypted)b, updated_by = %(by)s, updated_at = clock_timestamp();

-- name: get
-- A secret as it is stored.
select encrypted from permaflow.secret where org_id = %(org)s and name = %(name)s;

-- name: delete
-- Removes a secret.
delete from permaflow.secret where org_id = %(org)s and name = %(name)s;

-- name: list
-- The names of the secrets.
select name, updated_by, updated_at from permaflow.secret
where org_id = %(org)s and name > %(after)s
order by name
limit %(limit)s;
