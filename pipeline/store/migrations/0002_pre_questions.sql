-- Questions that runs have put, and the answers to them. pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

create table question (
  id        uuid primary key,
  org_id    uuid not null,
  run_id    uuid not null,
  scope     text not null,
  node      text not null,
  attempt   int  not null,
  kind      text not null,
  config    json not null,
  asked_at  timestamptz not null default clock_timestamp(),
  unique (run_id, scope, node, attempt)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create table answer (
  question_id  uuid primary key,
  org_id       uuid not null,
  run_id       uuid not null,
  scope        text not null,
  node         text not null,
  attempt      int  not null,
  output       json,
  output_ref   uuid,
  port         text,
  code         text,
  message      text not null default '',
  retryable    bool not null default false,
  at           timestamptz not null default clock_timestamp(),
  constraint output_once check (output is null or output_ref is null)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index answer_by_run on answer (run_id);

select protect(name::regclass, 'org_id') from unnest(array['question', 'answer']) as name;
grant select, insert, update, delete on question, answer to permaflow_engine;
grant select on question to permaflow_gateway;
grant select, insert on answer to permaflow_gateway;
