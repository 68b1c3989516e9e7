-- One new row. The names are quoted identifiers of the catalogue; the values are parameters.
insert into {table} as target ({columns}) values ({values}) returning to_jsonb(target.*)::text
