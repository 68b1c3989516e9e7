-- name: now
-- The database's clock.
select clock_timestamp();

-- name: version
-- The server's version.
select current_setting('server_version');

-- name: open_runs
-- How many runs have not ended.
select count(*) from permaflow.run where finished_at is null;

-- name: unsettled_runs
-- How many runs have ended and are not counted yet.
select count(*) from permaflow.run where finished_at is not null and settled_at is null;

-- name: ends
-- How many runs ended how since a moment, and when the last one did.
select status, count(*), max(finished_at) from permaflow.run
where created_at >= %s and finished_at is not null group by status;

-- name: statuses
-- How many runs of a workflow have which status.
select status, count(*) from permaflow.run where workflow_id = %s group by status;

-- name: times
-- When each row of a run's journal was written, in seconds.
select extract(epoch from at)::float8 from permaflow.journal where run_id = %s order by seq;

-- name: span
-- From the first row of a run's journal to the last, in seconds, and how many rows there are.
select extract(epoch from max(at) - min(at))::float8, count(*) from permaflow.journal where run_id = %s;

-- name: known
-- How many of these runs there are, and how many of them are completed.
select count(*), count(*) filter (where status = 'completed') from permaflow.run where id = any(%s);

-- name: journals
-- Every row of the journals of a workflow's runs.
select journal.run_id, extract(epoch from journal.at)::float8, journal.entries::text
from permaflow.journal join permaflow.run on run.id = journal.run_id
where run.workflow_id = %s order by journal.run_id, journal.seq;

-- name: make_orders
-- The watched table.
create table if not exists bench_order (
  id bigint generated always as identity primary key, customer text not null, total numeric not null
);

-- name: order
-- A change in the watched table.
insert into bench_order (customer, total) values (%s, %s) returning id;

-- name: published
-- Whether the watched table is read by now.
select count(*) from pg_publication_tables where tablename = 'bench_order';

-- name: fire_soon
-- Makes the timers of these runs due.
update permaflow.timer set due_at = clock_timestamp() where run_id = any(%s);

-- name: preload
-- Counts statements from the next start on.
alter system set shared_preload_libraries = 'pg_stat_statements';

-- name: count_statements
-- Makes the counts readable.
create extension if not exists pg_stat_statements;

-- name: forget_statements
-- Starts counting at nothing.
select pg_stat_statements_reset() is not null;

-- name: statements
-- What was executed, the most frequent first.
select query, calls from pg_stat_statements
where calls > 0 and query not like '%%pg_stat_%%' order by calls desc;

-- name: transactions
-- Transactions of all databases so far.
select sum(xact_commit + xact_rollback)::bigint from pg_stat_database;

-- name: ended_as
-- How many of these runs have a status.
select count(*) from permaflow.run where id = any(%s) and status = %s;
