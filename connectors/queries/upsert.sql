-- A new row, or the one that has these values already, changed. Its columns must be unique together.
insert into {table} as target ({columns}) values ({values})
on conflict ({unique}) do update set {assignments} returning to_jsonb(target.*)::text
