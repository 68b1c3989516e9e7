-- name: lock
-- Takes the lock of migrations if nobody holds it. Asked again and again: a session that waits for it
-- would hold a snapshot, which an index built concurrently by the holder would wait for.
select pg_try_advisory_lock(7102318955102208);

-- name: unlock
-- Gives the lock of migrations back.
select pg_advisory_unlock(7102318955102208);

-- name: prepare
-- Makes the table of applied migrations.
create table if not exists permaflow.schema_migrations (
  version     text primary key,
  checksum    text not null,
  applied_at  timestamptz not null default clock_timestamp()
);

-- name: schema
-- Makes the schema that holds everything.
create schema if not exists permaflow;

-- name: exists
-- Whether the table of applied migrations is there.
select to_regclass('permaflow.schema_migrations') is not null;

-- name: applied
-- The applied migrations, oldest first.
select version, checksum, applied_at from permaflow.schema_migrations order by version;

-- name: add
-- Notes that a migration has been applied.
insert into permaflow.schema_migrations (version, checksum) values (%(version)s, %(checksum)s);
