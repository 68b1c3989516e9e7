-- The rows that pass, in order, so many at most.
select to_jsonb(target.*)::text from {table} as target where {filter} {order} limit {limit}
