-- Runs that are undone are looked after like running ones, and attempts that may happen once are claimed.
-- pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

drop index run_running;
create index run_running on run (id) where status in ('pending', 'running', 'compensating');

create table claim (
  run_id   uuid not null,
  scope    text not null,
  node     text not null,
  attempt  int  not null,
  org_id   uuid not null,
  token    uuid not null,
  at       timestamptz not null default clock_timestamp(),
  primary key (run_id, scope, node, attempt)
);
create index claim_by_age on claim using brin (at) with (autosummarize = on);

select protect('claim', 'org_id');
grant select, insert, update, delete on claim to permaflow_engine;
