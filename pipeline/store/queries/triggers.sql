-- name: remove
-- Takes the triggers of a workflow away; its webhook addresses stay.
delete from permaflow.trigger where workflow_id = %(id)s;

-- name: insert
-- The triggers of the active version.
insert into permaflow.trigger (workflow_id, node, org_id, version, kind, object, events, conditions, settings)
values (%(id)s, %(node)s, %(org)s, %(version)s, %(kind)s, %(object)s, %(events)s::text[], %(conditions)s::json,
  %(settings)s::json);

-- name: bump
-- Tells everybody that the set of active triggers has changed. Held to the end of the transaction: call it last.
update permaflow.generation set value = value + 1 returning value;

-- name: generation
-- Grows whenever the set of active triggers changes.
select value from permaflow.generation;

-- name: active
-- Every trigger of every active workflow, or those of one kind.
select trigger.org_id, trigger.workflow_id, trigger.version, node, kind, object, events, conditions, settings,
  workflow.activated_at
from permaflow.trigger join permaflow.workflow on workflow.id = trigger.workflow_id
where %(kind)s::text is null or kind = %(kind)s
order by trigger.workflow_id, node;

-- name: put_webhook
-- The address of a webhook trigger; one that is there stays as it is.
insert into permaflow.webhook (token, org_id, workflow_id, node)
values (%(token)s, %(org)s, %(id)s, %(node)s)
on conflict (workflow_id, node) do nothing;

-- name: set_secret
-- The encrypted secret that senders sign with; makes the address if there is none yet.
insert into permaflow.webhook (token, org_id, workflow_id, node, encrypted_secret)
select %(token)s, org_id, id, %(node)s, %(secret)s
from permaflow.workflow
where id = %(id)s and org_id = %(org)s and deleted_at is null
on conflict (workflow_id, node) do update set encrypted_secret = excluded.encrypted_secret
returning token;

-- name: webhooks
-- The addresses of the webhook triggers of a workflow.
select node, token, encrypted_secret is not null as is_signed, created_at
from permaflow.webhook
where workflow_id = %(id)s and org_id = %(org)s
order by node;

-- name: webhook
-- Where a webhook leads; found before the organisation is known.
select org_id, workflow_id, node, encrypted_secret, status, version
from permaflow.webhook_by_token(%(token)s);

-- name: of_workflow
-- The triggers of one active workflow; a row without a trigger if it is active and has none.
select trigger.org_id, workflow.id as workflow_id, workflow.version, node, kind, object, events, conditions, settings,
  workflow.activated_at
from permaflow.workflow left join permaflow.trigger on trigger.workflow_id = workflow.id
where workflow.id = %(id)s and workflow.org_id = %(org)s and workflow.status = 'active' and deleted_at is null
order by node;

-- name: unpublished
-- Which of these objects name a schema of this database, and neither a published table nor built-in records.
select name
from unnest(%(objects)s::text[]) as wanted (name)
where exists (select from pg_namespace n where starts_with(name, n.nspname || '.'))
  and not exists (
    select
    from pg_publication p
    join pg_publication_rel r on r.prpubid = p.oid
    join pg_class c on c.oid = r.prrelid
    join pg_namespace n on n.oid = c.relnamespace
    where p.pubname = %(publication)s and name = n.nspname || '.' || c.relname
  )
  and not exists (select from permaflow.record where org_id = %(org)s and object = name);
