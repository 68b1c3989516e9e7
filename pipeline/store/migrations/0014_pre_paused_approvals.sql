-- Runs that were paused before their approvals were held with them. pipeline/store/schema.sql explains every table.

set local role permaflow_engine;

update permaflow.approval set held_at = run.paused_at, next_at = null
from permaflow.run
where run.id = approval.run_id and run.paused_at is not null and approval.status = 'pending' and held_at is null;
