-- name: settings
-- What kind of server this is, and its clock.
select current_setting('server_version') as version,
  current_setting('server_version_num')::int4 as version_number,
  current_setting('wal_level') as wal_level,
  current_setting('fsync') as fsync,
  current_setting('full_page_writes') as full_page_writes,
  current_setting('max_replication_slots')::int4 as max_slots,
  extract(epoch from clock_timestamp())::float8 as clock;

-- name: slots
-- The logical replication slots of this database, and how far behind their readers are.
select slot_name::text as name, active, coalesce(wal_status, '') as wal_status,
  coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::int8 as lag_bytes
from pg_catalog.pg_replication_slots
where slot_type = 'logical' and database = current_database()
order by slot_name;
