-- The primary key of a table.
select a.attname
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_index i on i.indrelid = c.oid and i.indisprimary
  join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
 where n.nspname = %(schema)s and c.relname = %(table)s
 order by array_position(i.indkey::int2[], a.attnum)
