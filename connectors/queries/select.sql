-- The first row that matches.
select to_jsonb(target.*)::text from {table} as target where {match} limit 1
