-- The hosts that a secret may be sent to; none: anywhere. pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

alter table secret add column hosts text[] not null default '{}';

grant select (hosts) on secret to permaflow_gateway;
