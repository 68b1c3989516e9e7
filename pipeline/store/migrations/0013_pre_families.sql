-- How many runs stand below one. pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

create table family (
  run_id      uuid primary key,
  org_id      uuid not null,
  size        bigint not null,
  created_at  timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

select protect('family', 'org_id');
grant select, insert, update, delete on family to permaflow_engine;
