-- name: insert
-- A new workflow: a draft at version 1.
insert into permaflow.workflow (id, org_id, name, description, trigger_type, version)
values (%(id)s, %(org)s, %(name)s, %(description)s, %(trigger_type)s, 1)
returning id, org_id, name, description, trigger_type, status, version, created_at, updated_at, activated_at;

-- name: insert_version
-- A version of a document; it never changes again.
insert into permaflow.workflow_version (workflow_id, version, org_id, document, dialect, created_by)
values (%(id)s, %(version)s, %(org)s, %(document)s::json, %(dialect)s, %(by)s);

-- name: lock
-- One workflow, held until the end of the transaction.
select id, org_id, name, description, trigger_type, status, version, created_at, updated_at, activated_at
from permaflow.workflow
where id = %(id)s and org_id = %(org)s and deleted_at is null
for update;

-- name: get
-- One workflow.
select id, org_id, name, description, trigger_type, status, version, created_at, updated_at, activated_at
from permaflow.workflow
where id = %(id)s and org_id = %(org)s and deleted_at is null;

-- name: list
-- The workflows of an organisation, newest first, from below `before` on.
select id, org_id, name, description, trigger_type, status, version, created_at, updated_at, activated_at
from permaflow.workflow
where org_id = %(org)s and deleted_at is null
  and (%(before)s::uuid is null or id < %(before)s)
  and (%(status)s::text is null or status = %(status)s)
order by id desc
limit %(limit)s;

-- name: set_version
-- Points a workflow to its new version.
update permaflow.workflow
set version = %(version)s, name = %(name)s, description = %(description)s, trigger_type = %(trigger_type)s,
    updated_at = clock_timestamp()
where id = %(id)s
returning id, org_id, name, description, trigger_type, status, version, created_at, updated_at, activated_at;

-- name: set_status
-- Changes the status; an activation is remembered with its time.
update permaflow.workflow
set status = %(status)s, updated_at = clock_timestamp(),
    activated_at = case when %(status)s = 'active' then clock_timestamp() else activated_at end
where id = %(id)s
returning id, org_id, name, description, trigger_type, status, version, created_at, updated_at, activated_at;

-- name: delete
-- Hides a workflow; its runs and documents stay.
update permaflow.workflow set deleted_at = clock_timestamp(), updated_at = clock_timestamp() where id = %(id)s;
