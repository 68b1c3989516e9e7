-- name: put
-- Sets a secret, new or in the place of the one before.
insert into permaflow.secret (org_id, name, encrypted, hosts, updated_by)
values (%(org)s, %(name)s, %(encrypted)b, %(hosts)s, %(by)s)
on conflict (org_id, name) do update
set encrypted = %(encrypted)b, hosts = %(hosts)s, updated_by = %(by)s, updated_at = clock_timestamp();

-- name: hosts
-- Where a secret that is about to be set anew may be sent to; nobody else sets it meanwhile.
select hosts from permaflow.secret where org_id = %(org)s and name = %(name)s for update;

-- name: get
-- A secret as it is stored, and where it may be sent to.
select encrypted, hosts from permaflow.secret where org_id = %(org)s and name = %(name)s;

-- name: delete
-- Removes a secret.
delete from permaflow.secret where org_id = %(org)s and name = %(name)s;

-- name: list
-- The names of the secrets.
select name, hosts, updated_by, updated_at from permaflow.secret
where org_id = %(org)s and name > %(after)s
order by name
limit %(limit)s;
