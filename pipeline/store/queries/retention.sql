-- name: make_partitions
-- Makes the partitions of this and the coming months; answers how many were missing.
select permaflow.make_partitions(clock_timestamp(), %(months)s::int4);

-- name: drop_oldest_month
-- Drops the oldest month if it ended before the cutoff and nothing in it is open; answers its name.
select permaflow.drop_oldest_month(%(cutoff)s::timestamptz);

-- name: cutoff
-- The moment so many days ago, by the clock of the database.
select clock_timestamp() - make_interval(days => %(days)s);

-- name: prune_keys
-- Forgets identities of events older than the cutoff, so many at a time.
delete from permaflow.run_key where key in (
  select key from permaflow.run_key where created_at < %(cutoff)s limit %(limit)s);

-- name: prune_claims
-- Forgets claims older than the cutoff, so many at a time.
delete from permaflow.claim where ctid in (
  select ctid from permaflow.claim where at < %(cutoff)s limit %(limit)s);

-- name: prune_families
-- Forgets how many runs were started below runs that are older than the cutoff, so many at a time.
delete from permaflow.family where run_id in (
  select run_id from permaflow.family where created_at < %(cutoff)s limit %(limit)s);
