-- The columns of the tables that `name` may mean, with or without its schema.
select n.nspname, c.relname, a.attname,
       coalesce(base.typname, t.typname) in ('json', 'jsonb') as is_json,
       coalesce(base.typcategory, t.typcategory) = 'A' as is_array
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
  left join pg_type base on base.oid = t.typbasetype
 where c.relname = any(%(relations)s)
   and (c.relname = %(name)s or n.nspname || '.' || c.relname = %(name)s)
   and c.relkind in ('r', 'p', 'v', 'f')
   and n.nspname not in ('information_schema', 'permaflow', 'permaflow_target')
   and n.nspname !~ '^pg_'
   and has_schema_privilege(n.oid, 'usage')
 order by n.nspname, c.relname, a.attnum
