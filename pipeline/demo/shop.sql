-- name: create
-- The shop's table.
create table if not exists public.orders (
  id         bigint generated always as identity primary key,
  customer   text not null,
  amount     numeric(10, 2) not null,
  status     text not null default 'placed',
  placed_at  timestamptz not null default clock_timestamp()
);

-- name: place
-- Takes orders in.
insert into public.orders (customer, amount)
select customer, amount from unnest(%(customers)s::text[], %(amounts)s::numeric[]) as row (customer, amount)
returning id, amount;

-- name: move
-- Orders go on: paid, shipped.
update public.orders set status = %(status)s where id = any(%(ids)s);

-- name: watched
-- Whether changes of orders are being read from now on.
select exists (
  select from pg_catalog.pg_publication_tables
  where pubname = %(slot)s and schemaname = 'public' and tablename = 'orders'
) and exists (
  select from pg_catalog.pg_replication_slots where slot_name = %(slot)s and active
);

-- name: runs
-- The runs of each workflow, by status.
select workflow_id::text, status, count(*)::int8
from permaflow.run
group by workflow_id, status;

-- name: lag
-- Bytes of log that the reader of changes has not confirmed yet.
select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::int8
from pg_catalog.pg_replication_slots
where slot_name = %(slot)s;
