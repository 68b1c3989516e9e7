-- name: insert
-- A link with which one person gives one decision about one approval; only the hash of its secret is kept.
insert into permaflow.approval_link (id, org_id, approval_id, person, decision, secret_sha256, expires_at)
values (%(id)s, %(org)s, %(approval)s, %(person)s, %(decision)s, %(sha256)s,
  clock_timestamp() + make_interval(secs => %(seconds)s))
returning expires_at;

-- name: find
-- A link by its id, and whether it is still good; found before the organisation is known.
select id, org_id as org, approval_id as approval, person, decision, secret_sha256, expires_at,
  expires_at > clock_timestamp() as is_valid
from permaflow.approval_link_by_id(%(id)s);
