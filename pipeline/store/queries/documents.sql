-- name: put
-- A document; one that is there stays.
insert into permaflow.document (org_id, id, name, content_type, body, run_id)
values (%(org)s, %(id)s, %(name)s, %(content_type)s, %(body)b, %(run_id)s)
on conflict (org_id, id) do nothing;

-- name: get
-- A document, whole.
select name, content_type, body from permaflow.document where org_id = %(org)s and id = %(id)s;

-- name: prune
-- Removes documents older than the cutoff, so many at a time.
delete from permaflow.document where (org_id, id) in (
  select org_id, id from permaflow.document where created_at < %(cutoff)s order by created_at limit %(limit)s);
