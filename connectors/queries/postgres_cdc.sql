-- name: wal_level
-- Whether the server writes what logical decoding needs, and which version it is.
select current_setting('wal_level'), current_setting('server_version_num')::int;

-- name: lock
-- One process at a time sets up the slot of this name, until its session ends.
select pg_advisory_lock(hashtextextended(%s, 7386193574910266));

-- name: slot
-- The replication slot: its plug-in, its database, whether it still has its WAL.
select plugin, database = current_database(), wal_status, confirmed_flush_lsn - '0/0'::pg_lsn
from pg_replication_slots
where slot_name = %s;

-- name: create_slot
-- A slot that keeps WAL from now on, until it is read or dropped.
select pg_create_logical_replication_slot(%s, 'pgoutput');

-- name: drop_slot
-- Lets go of the WAL that the slot keeps; nothing if there is no such slot.
select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s;

-- name: publication
-- Whether the publication is there.
select 1 from pg_publication where pubname = %s;

-- name: published
-- The tables of the publication.
select n.nspname, c.relname
from pg_publication p
join pg_publication_rel r on r.prpubid = p.oid
join pg_class c on c.oid = r.prrelid
join pg_namespace n on n.oid = c.relnamespace
where p.pubname = %s;

-- name: create_publication
-- Without tables yet, so that a slot may start before there is a trigger; partitions speak as one.
create publication {publication} with (publish_via_partition_root = true);

-- name: set_tables
-- Publish exactly these tables.
alter publication {publication} set table {tables};

-- name: drop_tables
-- Publish these tables no longer; `set table` cannot leave none.
alter publication {publication} drop table {tables};

-- name: drop_publication
-- The end of a source.
drop publication if exists {publication};

-- name: find_tables
-- Which of these names are tables: `schema.name`, or `name` in any schema but these and the system's.
select wanted.name, n.nspname, c.relname
from unnest(%s::text[]) as wanted (name)
join pg_class c on c.relkind in ('r', 'p') and c.relpersistence = 'p'
join pg_namespace n on n.oid = c.relnamespace
where (wanted.name = n.nspname || '.' || c.relname
       or (wanted.name = c.relname and n.nspname <> all (%s::text[])))
  and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by wanted.name, n.nspname;

-- name: key_columns
-- The columns of a table's primary key, in the order of the key.
select a.attname
from pg_index i
cross join lateral unnest(i.indkey::int2[]) with ordinality as k (number, place)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
where i.indrelid = %s::oid and i.indisprimary
order by k.place;

-- name: types
-- What types are made of: the base of a domain, the element of an array; with all they rest on.
with recursive found as (
    select oid, typtype, typelem, typbasetype, typoutput
    from pg_type
    where oid = any(%s::oid[])
    union
    select t.oid, t.typtype, t.typelem, t.typbasetype, t.typoutput
    from found f
    join pg_type t on t.oid in (f.typelem, f.typbasetype)
)
select oid::int8,
       case when typtype = 'd' then typbasetype::int8 else 0 end,
       case when typoutput = 'array_out'::regproc then typelem::int8 else 0 end
from found;

-- name: row_keys
-- Of these tables of the publication, the columns by which their changes name a row, and the types of these. The log
-- tells them in the order of the table, and nothing of them where whole rows are told: then it is the order of the key.
-- A table of a schema that is private has to be named with it.
select n.nspname, c.relname,
  array_agg(a.attname::text order by case when c.relreplident = 'f' then k.place else a.attnum end),
  array_agg(format_type(a.atttypid, a.atttypmod) order by case when c.relreplident = 'f' then k.place else a.attnum end)
from pg_publication p
join pg_publication_rel r on r.prpubid = p.oid
join pg_class c on c.oid = r.prrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_index i on i.indrelid = c.oid
  and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end
cross join lateral unnest(i.indkey::int2[]) with ordinality as k (number, place)
join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
where p.pubname = %s
  and (c.relname = any(%s::text[]) and n.nspname <> all (%s::text[]) or n.nspname || '.' || c.relname = any(%s::text[]))
group by n.nspname, c.relname;

-- name: rows
-- Rows by their key.
select * from {table} where {key} = any(%s::text[]::{type}[]);

-- name: row
-- A row by the columns of its key.
select * from {table} where {match};
