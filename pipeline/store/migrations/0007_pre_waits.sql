-- Waits for changes, children by the name of their workflow, and what answers tell of failures.
-- pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

alter table answer add column details json;

create index workflow_by_name on workflow (org_id, name) where deleted_at is null;

create table change_wait (
  question_id  uuid primary key,
  org_id       uuid not null,
  object       text not null,
  record_id    text not null,
  conditions   json not null,
  since        timestamptz not null default clock_timestamp(),
  looked       bool not null default false
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index change_wait_by_record on change_wait (object, record_id);
create index change_wait_not_looked on change_wait (question_id) where not looked;

select protect('change_wait', 'org_id');
grant select, insert, update, delete on change_wait to permaflow_engine;
