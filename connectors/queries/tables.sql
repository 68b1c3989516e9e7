-- Every table that workflows may reach, by its name with the schema.
select n.nspname || '.' || c.relname as name
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'f')
   and not c.relispartition
   and n.nspname not in ('information_schema', 'permaflow', 'permaflow_target')
   and n.nspname !~ '^pg_'
   and has_schema_privilege(n.oid, 'usage')
   and has_table_privilege(c.oid, 'select')
 order by 1
 limit %(limit)s
