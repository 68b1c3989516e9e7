-- The first schema. pipeline/store/schema.sql explains every table.

create schema if not exists permaflow;
set local search_path = permaflow, pg_catalog;

-- Organisations, and who may come in ----------------------------------------------------------

create table org (
  id          uuid primary key,
  slug        text not null unique check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name        text not null,
  created_at  timestamptz not null default clock_timestamp()
);

create table api_key (
  id             text primary key,
  org_id         uuid not null references org,
  name           text not null,
  secret_sha256  bytea not null check (octet_length(secret_sha256) = 32),
  scopes         text[] not null,
  user_name      text not null default '',
  created_at     timestamptz not null default clock_timestamp(),
  expires_at     timestamptz,
  revoked_at     timestamptz
);

-- Workflows: documents, versions, triggers ------------------------------------------------------

create table workflow (
  id            uuid primary key,
  org_id        uuid not null references org,
  name          text not null,
  description   text not null default '',
  trigger_type  text not null default '',
  status        text not null default 'draft' check (status in ('draft', 'active', 'paused', 'archived')),
  version       int  not null,
  created_at    timestamptz not null default clock_timestamp(),
  updated_at    timestamptz not null default clock_timestamp(),
  activated_at  timestamptz,
  deleted_at    timestamptz
);
create index workflow_by_org on workflow (org_id, id desc) where deleted_at is null;

create table workflow_version (
  workflow_id  uuid not null references workflow,
  version      int  not null,
  org_id       uuid not null references org,
  document     json not null,
  dialect      text not null,
  created_by   text not null default '',
  created_at   timestamptz not null default clock_timestamp(),
  primary key (workflow_id, version)
);

create table trigger (
  workflow_id  uuid not null references workflow,
  node         text not null,
  org_id       uuid not null references org,
  version      int  not null,
  kind         text not null,
  object       text not null default '',
  primary key (workflow_id, node)
);

create table webhook (
  token             text primary key check (length(token) >= 22),
  org_id            uuid not null references org,
  workflow_id       uuid not null references workflow,
  node              text not null,
  encrypted_secret  bytea,
  created_at        timestamptz not null default clock_timestamp(),
  unique (workflow_id, node)
);

-- One row; its value grows whenever the set of active triggers changes, in the same transaction.
create table generation (
  only   boolean primary key default true check (only),
  value  bigint not null default 0
);
insert into generation default values;

create table workflow_stats (
  workflow_id    uuid primary key references workflow,
  org_id         uuid not null references org,
  run_count      bigint not null default 0,
  success_count  bigint not null default 0,
  failure_count  bigint not null default 0,
  last_run_at    timestamptz
);

-- Runs -------------------------------------------------------------------------------------------

create table run (
  id             uuid not null primary key,
  org_id         uuid not null,
  workflow_id    uuid not null,
  version        int  not null,
  status         text not null check (status in ('pending', 'running', 'waiting', 'completed', 'failed',
                   'cancelled', 'timed_out', 'compensating', 'compensated')),
  source         text not null,
  trigger_node   text not null default '',
  input          json,
  input_ref      uuid,
  type           text not null default '',
  resource_type  text not null default '',
  resource_id    text not null default '',
  requested_by   text not null default '',
  parent_id      uuid,
  created_at     timestamptz not null default clock_timestamp(),
  finished_at    timestamptz,
  settled_at     timestamptz,
  error          json,
  constraint finished_or_open check
    ((finished_at is null) = (status in ('pending', 'running', 'waiting', 'compensating')))
) partition by range (id);
create index run_by_org on run (org_id, id desc);
create index run_by_workflow on run (workflow_id, id desc);
create index run_running on run (id) where status in ('pending', 'running');
create index run_unsettled on run (id) where finished_at is not null and settled_at is null;

create table journal (
  run_id   uuid not null,
  seq      int  not null,
  org_id   uuid not null,
  at       timestamptz not null default clock_timestamp(),
  entries  json not null,
  primary key (run_id, seq)
) partition by range (run_id);

create table payload (
  id      uuid not null primary key,
  org_id  uuid not null,
  run_id  uuid,
  body    bytea not null
) partition by range (id);

create table run_key (
  key         bytea primary key check (octet_length(key) = 32),
  org_id      uuid not null,
  run_id      uuid not null,
  created_at  timestamptz not null default clock_timestamp()
);

create table timer (
  run_id  uuid not null,
  key     text not null,
  org_id  uuid not null,
  due_at  timestamptz not null,
  primary key (run_id, key)
);
create index timer_due on timer (due_at);

create table lease (
  run_id    uuid not null,
  step      text not null,
  attempt   int  not null,
  org_id    uuid not null,
  holder    text not null,
  until     timestamptz not null,
  deadline  timestamptz not null,
  primary key (run_id, step)
);

-- Records, sources, and what could not be read -------------------------------------------------

create table record (
  org_id      uuid not null references org,
  object      text not null,
  id          text not null,
  data        jsonb not null,
  version     bigint not null default 1,
  created_at  timestamptz not null default clock_timestamp(),
  updated_at  timestamptz not null default clock_timestamp(),
  primary key (org_id, object, id)
);
alter table record replica identity full;

create table kafka_offset (
  group_id     text not null,
  topic        text not null,
  partition    int  not null,
  next_offset  bigint not null,
  generation   int not null default 0,
  primary key (group_id, topic, partition)
);

create table dead_letter (
  id        uuid primary key,
  org_id    uuid,
  source    text not null,
  position  text not null,
  reason    text not null,
  raw       bytea not null,
  at        timestamptz not null default clock_timestamp()
);

create table audit (
  id       uuid primary key,
  org_id   uuid not null,
  actor    text not null,
  action   text not null,
  object   text not null,
  details  json not null default '{}',
  at       timestamptz not null default clock_timestamp()
);
create index audit_by_org on audit (org_id, id desc);

-- Partitions by the time that a UUIDv7 carries -----------------------------------------------------

-- The smallest UUIDv7 of a moment: 48 bits of milliseconds, then zeros.
create function uuid_at(moment timestamptz) returns uuid
language sql immutable strict as $$
  select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the monthly partitions from the month of `start` on, `months` of them.
create function make_partitions(start timestamptz, months int) returns int
language plpgsql as $$
declare
  made int := 0;
  lower_at timestamptz := date_trunc('month', start at time zone 'UTC') at time zone 'UTC';
  upper_at timestamptz;
  parent text;
  child text;
begin
  for month in 1..months loop
    upper_at := ((lower_at at time zone 'UTC') + interval '1 month') at time zone 'UTC';
    foreach parent in array array['run', 'journal', 'payload'] loop
      child := parent || '_' || to_char(lower_at at time zone 'UTC', 'YYYYMM');
      if to_regclass('permaflow.' || child) is null then
        execute format('create table permaflow.%I partition of permaflow.%I for values from (%L) to (%L)',
          child, parent, permaflow.uuid_at(lower_at), permaflow.uuid_at(upper_at));
        made := made + 1;
      end if;
    end loop;
    lower_at := upper_at;
  end loop;
  return made;
end $$;

create table run_default partition of run default;
create table journal_default partition of journal default;
create table payload_default partition of payload default;
select make_partitions(now() - interval '1 month', 4);

-- Row level security: the gateway sees one organisation at a time -------------------------------

do $$ begin
  if not exists (select from pg_roles where rolname = 'permaflow_gateway') then
    create role permaflow_gateway nologin nobypassrls;
  end if;
  if not exists (select from pg_roles where rolname = 'permaflow_engine') then
    create role permaflow_engine nologin nobypassrls;
  end if;
end $$;
