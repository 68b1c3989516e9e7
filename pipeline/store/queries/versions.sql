-- name: document
-- One version of a document as it was written; the current one if `version` is null.
select workflow_version.version, document, dialect, created_by, workflow_version.created_at
from permaflow.workflow_version join permaflow.workflow on workflow.id = workflow_id
where workflow_id = %(id)s and workflow_version.version = coalesce(%(version)s::int, workflow.version);

-- name: list
-- The versions of a workflow without their documents, newest first, from below `before` on.
select version, dialect, created_by, created_at
from permaflow.workflow_version
where workflow_id = %(id)s and org_id = %(org)s and (%(before)s::int is null or version < %(before)s)
order by version desc
limit %(limit)s;
