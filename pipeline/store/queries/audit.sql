-- name: insert
-- What somebody did.
insert into permaflow.audit (id, org_id, actor, action, object, details)
values (%(id)s, %(org)s, %(actor)s, %(action)s, %(object)s, %(details)s::json);

-- name: list
-- What was done in an organisation, newest first, from below `before` on.
select id, actor, action, object, details, at
from permaflow.audit
where org_id = %(org)s
  and (%(before)s::uuid is null or id < %(before)s)
  and (%(object)s::text is null or object = %(object)s)
order by id desc
limit %(limit)s;
