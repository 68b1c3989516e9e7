-- One new row of defaults.
insert into {table} as target default values returning to_jsonb(target.*)::text
