-- name: insert
-- A new key; only the hash of its secret part is kept.
insert into permaflow.api_key (id, org_id, name, secret_sha256, scopes, user_name, expires_at)
values (%(id)s, %(org)s, %(name)s, %(sha256)s, %(scopes)s::text[], %(user_name)s, %(expires_at)s)
returning id, org_id as org, name, scopes, user_name, created_at, expires_at, revoked_at;

-- name: find
-- A key by its id, and whether it is still good; found before the organisation is known.
select id, org_id as org, name, scopes, user_name, secret_sha256,
  revoked_at is null and (expires_at is null or expires_at > clock_timestamp()) as is_valid
from permaflow.api_key_by_id(%(id)s);

-- name: revoke
-- Ends a key; the time of the first call is kept.
update permaflow.api_key
set revoked_at = coalesce(revoked_at, clock_timestamp())
where id = %(id)s and org_id = %(org)s
returning id;

-- name: list
-- The keys of an organisation.
select id, org_id as org, name, scopes, user_name, created_at, expires_at, revoked_at
from permaflow.api_key
where org_id = %(org)s
order by created_at desc, id;
