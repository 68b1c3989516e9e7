-- Sets columns of the rows that match.
update {table} as target set {assignments} where {match} returning to_jsonb(target.*)::text
