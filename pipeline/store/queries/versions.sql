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

-- name: in_use
-- The versions that open runs go by and those that active workflows start runs with: those of the
-- most runs first, at most `limit` of the `total`.
with wanted as (
  select workflow_id, version, count(*) as runs
  from permaflow.run where finished_at is null
  group by workflow_id, version
  union all
  select id, version, 0 from permaflow.workflow where status = 'active' and deleted_at is null
), versions as (
  select workflow_id, version, sum(runs)::int8 as open_runs, count(*) over () as total
  from wanted
  group by workflow_id, version
  order by open_runs desc, workflow_id, version
  limit %(limit)s
)
select workflow.name, versions.version, document, open_runs, total
from versions
  join permaflow.workflow_version using (workflow_id, version)
  join permaflow.workflow on workflow.id = workflow_id
order by open_runs desc, workflow_id, versions.version;
