-- What Permaflow keeps in a database that action_record writes to: one row for each write, in the
-- same transaction, so that a repeated attempt of a step writes nothing and gets the first answer.
-- Made on demand; run it by hand where the role must not create schemas.
select pg_advisory_xact_lock(7386193574910265);
create schema if not exists permaflow_target;
create table if not exists permaflow_target.applied (
  key    text primary key,
  at     timestamptz not null default clock_timestamp(),
  answer json
);
create index if not exists applied_at on permaflow_target.applied using brin (at);
