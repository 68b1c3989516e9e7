-- How many rows match, as far as it matters.
select count(*) from (select from {table} as target where {match} limit {limit}) as found
