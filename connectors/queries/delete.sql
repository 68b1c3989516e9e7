-- Removes the rows that match.
delete from {table} as target where {match} returning to_jsonb(target.*)::text
