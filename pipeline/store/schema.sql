-- The schema of Permaflow, whole. Nothing reads this file but people: the database is made by the files in
-- migrations/, and a test proves that they come to the same.
--
-- The life of a run
-- -----------------
-- A workflow is a row in `workflow`; each time it is saved, its document becomes a new, immutable row in
-- `workflow_version`. While it is active, its triggers are rows in `trigger`, and its webhook addresses are found in
-- `webhook`. Any change of the active triggers lets `generation` grow in the same transaction; whoever keeps the
-- triggers in memory looks there.
--
-- An event that matches a trigger becomes a run by one statement (queries/starts.sql): its identity goes into
-- `run_key`, and only if it is new, a row into `run` that pins the current version. A large input goes to `payload`.
-- The statement joins whatever else the transaction holds: the offset in `kafka_offset`, or a user's own rows.
--
-- From then on the run is its journal. An orchestrator reads `run` and `journal`, decides, and appends one row
-- `(run_id, seq)`. Whoever appends `seq + 1` first wins; the other fails on the primary key, loads again and decides
-- again. Timers that a decision needs are armed and disarmed in `timer` in that transaction. No row of a run is
-- updated meanwhile, except its status when it starts or stops to wait. A runner that works for long holds a `lease`,
-- so that the reconciler, which looks for running runs without news, leaves it alone.
--
-- At its end a run gets `finished_at`. Completion settles it: counts it into `workflow_stats`, exactly once
-- (`settled_at`). A month whose runs are all finished and settled is dropped with its partitions when it is old enough.
--
-- People hold a run, let it go on, open it again after its end, or move it to another version by a row of its journal,
-- too, which the gateway appends (queries/controls.sql). The primary key says who was first, as among orchestrators. While
-- a run is held, `held_at` keeps its timers from being due. A run that is opened again is no longer counted.
--
-- The tables
-- ----------
-- org                an organisation; every other row belongs to one
-- api_key            who may call; the secret is kept as a hash
-- workflow           name, status, and which version is current
-- workflow_version   the documents as they were written; rows never change
-- trigger            the triggers of active workflows, ready to be matched
-- webhook            the address of a webhook trigger; it stays for all versions
-- generation         one row: grows when the active triggers change
-- workflow_stats     counts of settled runs
-- run                who, what, when and how it ended; monthly partitions by the time in its UUIDv7
-- journal            what happened to a run; partitioned with it
-- payload            values too large for the journal or a message; partitioned by their own UUIDv7
-- run_key            sha256 of (org, workflow, trigger, source, event): unique over all months, kept longer than runs
-- timer              what is due, and when
-- question           what a run has asked people, a change or a child run, until that is over
-- answer             the first answer to each, until the run has taken it in
-- user_group         groups of users, and user_group_member who is in them
-- approval           what people are asked, and what it came to; `next_at` is when to remind or to escalate, `held_for`
--                    how long its run was paused meanwhile
-- approval_assignee  whom it asks: users, groups, and those who handed over
-- approval_event     who decided what, who handed over to whom, reminders and escalations; rows never change
-- approval_link      links that decide; the secret is kept as a hash
-- change_wait        of which record which change is waited for, one row for each such question
-- family             how many runs were started below one that stands below none; kept as long as runs are
-- lease              long steps that a runner holds
-- claim              attempts that may happen once, as runners begin them; kept as long as runs are
-- record             the built-in document store; watched by change data capture
-- kafka_offset       how far each partition is read; `generation` fences a consumer that lost it, `log_id` tells a
--                    topic from one of the same name that was deleted
-- notification       what people are told; notification_box numbers those of a user as they are committed
-- document           files that steps wrote, such as reports
-- secret             what steps refer to by name, encrypted; only runners read it, and send it to `hosts` alone, if there are any
-- dead_letter        messages that could not be read, as they came
-- audit              who did what
-- schema_migrations  the applied migrations
--
-- Rules
-- -----
-- Only the clock of the database counts; times are timestamptz. What is written gets `clock_timestamp()`; what is
-- compared is `statement_timestamp()`, because an index cannot be searched for a moment that moves. Ids are UUIDv7 and
-- come from the caller. JSON that people wrote is `json`, byte for byte; `jsonb` is only where PostgreSQL looks into it.
-- Locks are taken in the order workflow, run, run_key, timer, approval, question, answer, change_wait, family, lease, claim, kafka_offset, generation, and within a table in the order
-- of the primary key. Status and timestamps that are indexed change only a few times in a run's life.
-- Row level security is forced on every table with an organisation, for partitions too. permaflow_gateway sees
-- the organisation that the transaction has chosen; to choose none is an error. permaflow_engine sees all.

create schema if not exists permaflow;
set local search_path = permaflow, pg_catalog;

-- The migrations that are in here --------------------------------------------------------------

create table schema_migrations (
  version     text primary key,
  checksum    text not null,
  applied_at  timestamptz not null default clock_timestamp()
);

-- Organisations, and who may come in ------------------------------------------------------------

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
create index api_key_by_org on api_key (org_id, id);

-- Workflows: documents, versions, triggers --------------------------------------------------------

create table workflow (
  id            uuid primary key,
  org_id        uuid not null references org,
  name          text not null,
  description   text not null default '',
  trigger_type  text not null default '',
  status        text not null default 'draft' check (status in ('draft', 'active', 'paused', 'archived')),
  version       int  not null check (version > 0),
  created_at    timestamptz not null default clock_timestamp(),
  updated_at    timestamptz not null default clock_timestamp(),
  activated_at  timestamptz,
  deleted_at    timestamptz
);
create index workflow_by_org on workflow (org_id, id desc) where deleted_at is null;
create index workflow_by_name on workflow (org_id, name) where deleted_at is null;

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
  events       text[] not null default '{}',
  conditions   json not null default '[]',
  settings     json not null default '{}',
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
  one    boolean primary key default true check (one),
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

-- Runs ------------------------------------------------------------------------------------------

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
  cancel_at      timestamptz,
  cancel_by      text,
  error          json,
  reopened       int  not null default 0,
  rerun_of       uuid,
  paused_at      timestamptz,
  paused_by      text,
  constraint finished_or_open check
    ((finished_at is null) = (status in ('pending', 'running', 'waiting', 'compensating'))),
  constraint input_once check (input is null or input_ref is null)
) partition by range (id);
create index run_by_org on run (org_id, id desc);
create index run_by_workflow on run (workflow_id, id desc);
create index run_by_type on run (org_id, type, id desc) where type <> '';
create index run_by_resource on run (org_id, resource_id, id desc) where resource_id <> '';
create index run_by_parent on run (parent_id) where parent_id is not null;
create index run_open on run (workflow_id) where finished_at is null;
create index run_running on run (id) where status in ('pending', 'running', 'compensating');
create index run_unsettled on run (id) where finished_at is not null and settled_at is null;
create index run_cancelled on run (id) where cancel_at is not null and finished_at is null;

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
create index run_key_by_age on run_key using brin (created_at) with (autosummarize = on);

create table timer (
  run_id  uuid not null,
  key     text not null,
  org_id  uuid not null,
  due_at  timestamptz not null,
  held_at timestamptz,
  primary key (run_id, key)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index timer_due on timer (due_at) where held_at is null;

create table question (
  id        uuid primary key,
  org_id    uuid not null,
  run_id    uuid not null,
  scope     text not null,
  node      text not null,
  attempt   int  not null,
  kind      text not null,
  config    json not null,
  asked_at  timestamptz not null default clock_timestamp(),
  unique (run_id, scope, node, attempt)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create table answer (
  question_id  uuid primary key,
  org_id       uuid not null,
  run_id       uuid not null,
  scope        text not null,
  node         text not null,
  attempt      int  not null,
  output       json,
  output_ref   uuid,
  port         text,
  code         text,
  message      text not null default '',
  retryable    bool not null default false,
  at           timestamptz not null default clock_timestamp(),
  details      json,
  constraint output_once check (output is null or output_ref is null)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index answer_by_run on answer (run_id);

-- Of a run that stands below no other: how many were started below it.
create table family (
  run_id      uuid primary key,
  org_id      uuid not null,
  size        bigint not null,
  created_at  timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create table change_wait (
  question_id  uuid primary key,
  org_id       uuid not null,
  object       text not null,
  record_id    text not null,
  conditions   json not null,
  since        timestamptz not null default clock_timestamp(),
  looked       bool not null default false
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index change_wait_by_record on change_wait (object, record_id);
create index change_wait_not_looked on change_wait (question_id) where not looked;

-- Approvals --------------------------------------------------------------------------------------

create table user_group (
  org_id      uuid not null references org,
  name        text not null,
  created_at  timestamptz not null default clock_timestamp(),
  updated_at  timestamptz not null default clock_timestamp(),
  primary key (org_id, name)
);

create table user_group_member (
  org_id      uuid not null,
  group_name  text not null,
  person      text not null,
  primary key (org_id, group_name, person),
  foreign key (org_id, group_name) references user_group on delete cascade
);
create index user_group_member_by_person on user_group_member (org_id, person);

create table approval (
  id          uuid primary key,
  org_id      uuid not null,
  run_id      uuid not null,
  scope       text not null,
  node        text not null,
  attempt     int  not null,
  status      text not null default 'pending' check (status in ('pending', 'approved', 'rejected', 'timed_out',
                'withdrawn')),
  to_all      bool not null,
  requester   text not null default '',
  terms       json not null,
  reminders   int  not null default 0,
  level       int  not null default 0,
  next_at     timestamptz,
  asked_at    timestamptz not null default clock_timestamp(),
  expires_at  timestamptz,
  closed_at   timestamptz,
  closed_by   text not null default '',
  held_at     timestamptz,
  held_for    interval not null default '0',
  unique (run_id, scope, node, attempt),
  constraint closed_or_pending check ((closed_at is null) = (status = 'pending')),
  constraint nothing_due_when_closed check (status = 'pending' or next_at is null)
);
create index approval_pending on approval (org_id, id desc) where status = 'pending';
create index approval_to_all on approval (org_id, id desc) where status = 'pending' and to_all;
create index approval_due on approval (next_at) where next_at is not null;
create index approval_closed on approval (closed_at) where closed_at is not null;

-- Whom it asks. `away`: somebody who was asked, and handed over.
create table approval_assignee (
  approval_id  uuid not null references approval on delete cascade,
  kind         text not null check (kind in ('user', 'group', 'away')),
  name         text not null,
  org_id       uuid not null,
  is_open      bool not null default true,
  primary key (approval_id, kind, name)
);
create index approval_assignee_by_name on approval_assignee (org_id, kind, name) where is_open;

-- What was done about it; rows are never changed.
create table approval_event (
  id           uuid primary key,
  org_id       uuid not null,
  approval_id  uuid not null references approval on delete cascade,
  kind         text not null check (kind in ('approve', 'reject', 'delegate', 'remind', 'escalate')),
  person       text not null default '',
  details      json not null default '{}',
  comment      text not null default '',
  via          text not null default '',
  at           timestamptz not null default clock_timestamp()
);
create index approval_event_of on approval_event (approval_id, at);
create unique index one_decision_each on approval_event (approval_id, person) where kind in ('approve', 'reject');

create table approval_link (
  id             text primary key,
  org_id         uuid not null,
  approval_id    uuid not null references approval on delete cascade,
  person         text not null,
  decision       text not null check (decision in ('approve', 'reject')),
  secret_sha256  bytea not null check (octet_length(secret_sha256) = 32),
  created_at     timestamptz not null default clock_timestamp(),
  expires_at     timestamptz not null
);
create index approval_link_of on approval_link (approval_id);

create table lease (
  run_id    uuid not null,
  step      text not null,
  attempt   int  not null,
  org_id    uuid not null,
  holder    text not null,
  until     timestamptz not null,
  deadline  timestamptz not null,
  primary key (run_id, step)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create table claim (
  run_id   uuid not null,
  scope    text not null,
  node     text not null,
  attempt  int  not null,
  org_id   uuid not null,
  token    uuid not null,
  at       timestamptz not null default clock_timestamp(),
  primary key (run_id, scope, node, attempt)
);
create index claim_by_age on claim using brin (at) with (autosummarize = on);

-- Records, sources, and what could not be read ----------------------------------------------------

create table record (
  org_id      uuid not null references org,
  object      text not null,
  id          text not null,
  data        jsonb not null check (jsonb_typeof(data) = 'object'),
  version     bigint not null default 1,
  created_at  timestamptz not null default clock_timestamp(),
  updated_at  timestamptz not null default clock_timestamp(),
  primary key (org_id, object, id)
);
-- Change data capture then tells of the state before.
alter table record replica identity full;

create table kafka_offset (
  group_id     text not null,
  topic        text not null,
  partition    int  not null,
  next_offset  bigint,
  generation   int not null default 1,
  log_id       text not null default '',
  primary key (group_id, topic, partition)
);

-- What actions leave behind ------------------------------------------------------------------------

-- Numbers the notifications of a user in the order in which they are committed: its row is the lock.
create table notification_box (
  org_id     uuid not null references org,
  user_name  text not null,
  last_seq   bigint not null,
  primary key (org_id, user_name)
);

create table notification (
  org_id       uuid not null references org,
  id           uuid not null,
  user_name    text not null,
  seq          bigint not null,
  title        text not null,
  description  text not null,
  link         text not null,
  data         json not null,
  run_id       uuid,
  at           timestamptz not null default clock_timestamp(),
  read_at      timestamptz,
  primary key (org_id, id)
);
create unique index notification_by_user on notification (org_id, user_name, seq);
create index notification_unread on notification (org_id, user_name, seq) where read_at is null;
create index notification_by_age on notification (at);

create table document (
  org_id        uuid not null references org,
  id            uuid not null,
  name          text not null,
  content_type  text not null,
  body          bytea not null,
  run_id        uuid,
  created_at    timestamptz not null default clock_timestamp(),
  primary key (org_id, id)
);
create index document_by_age on document (created_at);

create table secret (
  org_id      uuid not null references org,
  name        text not null,
  encrypted   bytea not null,
  updated_by  text not null,
  updated_at  timestamptz not null default clock_timestamp(),
  hosts       text[] not null default '{}',
  primary key (org_id, name)
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
create index dead_letter_by_org on dead_letter (org_id, id desc);

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

-- Roles ---------------------------------------------------------------------------------------------

-- Roles belong to the whole cluster: another database may make the same two at this moment.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['permaflow_gateway', 'permaflow_engine'] loop
    begin
      if to_regrole(wanted) is null then
        execute format('create role %I nologin nobypassrls', wanted);
      end if;
    exception when duplicate_object or unique_violation then
      null;
    end;
    if not (pg_has_role(current_user, wanted, 'usage') and pg_has_role(current_user, wanted, 'member')) then
      execute format('grant %I to current_user', wanted);
    end if;
  end loop;
exception when insufficient_privilege then
  raise exception 'the user % may not make the roles permaflow_gateway and permaflow_engine, or use them', current_user
    using errcode = 'insufficient_privilege', hint = format('Let an administrator run: create role permaflow_gateway '
      || 'nologin; create role permaflow_engine nologin; grant permaflow_gateway, permaflow_engine to %I;', current_user);
end $$;

-- Row level security: the gateway sees one organisation at a time, the engine sees all ------------

-- The organisation of this transaction. An error, never an empty answer, where none was set.
create function current_org() returns uuid
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return current_setting('permaflow.org')::uuid;
exception when undefined_object or invalid_text_representation then
  raise exception 'permaflow.org is not set: open the transaction with an organisation'
    using errcode = 'insufficient_privilege';
end $$;

-- Turns row level security on, for the owner too.
create function protect(target regclass, org_column text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('alter table %s enable row level security', target);
  execute format('alter table %s force row level security', target);
  execute format('create policy engine on %s to permaflow_engine using (true)', target);
  execute format('create policy gateway on %s to permaflow_gateway using (%I = (select permaflow.current_org()))',
    target, org_column);
end $$;
revoke all on function protect(regclass, text) from public;

select protect('org', 'id');
select protect(name::regclass, 'org_id')
from unnest(array['api_key', 'workflow', 'workflow_version', 'trigger', 'webhook', 'workflow_stats', 'run', 'journal',
  'payload', 'run_key', 'timer', 'question', 'answer', 'change_wait', 'family', 'user_group', 'user_group_member', 'approval', 'approval_assignee',
  'approval_event', 'approval_link', 'lease', 'claim', 'record', 'dead_letter', 'audit']) as name;

select protect(name::regclass, 'org_id')
from unnest(array['notification_box', 'notification', 'document', 'secret']) as name;

revoke all on schema permaflow from public;
grant usage on schema permaflow to permaflow_gateway, permaflow_engine;
grant select, insert, update, delete on all tables in schema permaflow to permaflow_engine;

-- What was done about an approval is never changed.
revoke update on approval_event from permaflow_engine;

grant select on org, workflow_stats, question, dead_letter, timer to permaflow_gateway;
grant select, insert on journal, workflow_version, run_key, audit to permaflow_gateway;
grant select, insert, update on api_key, workflow to permaflow_gateway;
grant select, insert, update, delete on trigger, webhook, record, user_group, user_group_member to permaflow_gateway;
grant select, insert on run, payload, answer to permaflow_gateway;
grant update (cancel_at, cancel_by) on run to permaflow_gateway;
grant select on approval to permaflow_gateway;
grant select, insert on approval_assignee, approval_event, approval_link to permaflow_gateway;
grant update (status, closed_at, closed_by, next_at, held_at, held_for, expires_at) on approval to permaflow_gateway;
grant update (is_open) on approval_assignee to permaflow_gateway;
grant update (status, version, error, finished_at, settled_at, reopened, paused_at, paused_by) on run to permaflow_gateway;
grant update (due_at, held_at) on timer to permaflow_gateway;
grant update (run_count, success_count, failure_count) on workflow_stats to permaflow_gateway;
grant select, update on generation to permaflow_gateway;
grant select on notification, document to permaflow_gateway;
grant update (read_at) on notification to permaflow_gateway;
grant insert, update, delete on secret to permaflow_gateway;
grant select (org_id, name, updated_by, updated_at, hosts) on secret to permaflow_gateway;

-- What must be found before the organisation is known ----------------------------------------------

create function api_key_by_id(wanted text)
returns table (id text, org_id uuid, name text, secret_sha256 bytea, scopes text[], user_name text,
  expires_at timestamptz, revoked_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select id, org_id, name, secret_sha256, scopes, user_name, expires_at, revoked_at
  from permaflow.api_key where id = wanted
$$;

create function webhook_by_token(wanted text)
returns table (org_id uuid, workflow_id uuid, node text, encrypted_secret bytea, status text, version int)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select webhook.org_id, webhook.workflow_id, webhook.node, webhook.encrypted_secret, workflow.status, workflow.version
  from permaflow.webhook join permaflow.workflow on workflow.id = webhook.workflow_id
  where webhook.token = wanted and workflow.deleted_at is null
$$;

create function org_by_slug(wanted text)
returns table (id uuid, slug text, name text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select id, slug, name from permaflow.org where slug = wanted
$$;

revoke all on function api_key_by_id(text), webhook_by_token(text), org_by_slug(text) from public;
grant execute on function api_key_by_id(text), webhook_by_token(text), org_by_slug(text)
  to permaflow_gateway, permaflow_engine;

-- Approvals --------------------------------------------------------------------------------------

-- Where a link leads; found before the organisation is known.
create function approval_link_by_id(wanted text)
returns table (id text, org_id uuid, approval_id uuid, person text, decision text, secret_sha256 bytea,
  expires_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select id, org_id, approval_id, person, decision, secret_sha256, expires_at
  from permaflow.approval_link where id = wanted
$$;

-- Ends approvals whose steps are over. One that was decided, while its step ends for another reason, is a conflict:
-- its answer counts, and the run has to take it in first.
create function close_approvals(run_ids uuid[], scopes text[], nodes text[], attempts int[], were_answered bool[]) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  closed int;
begin
  with gone as (
    select * from unnest(run_ids, scopes, nodes, attempts) as gone (run_id, scope, node, attempt)
  ), ended as (
    update permaflow.approval
    set status = case when held_at is null and expires_at <= clock_timestamp() + interval '1 second' then 'timed_out'
        else 'withdrawn' end,
      closed_at = clock_timestamp(), next_at = null
    from gone
    where approval.run_id = gone.run_id and approval.scope = gone.scope and approval.node = gone.node
      and approval.attempt = gone.attempt and status = 'pending'
    returning id
  )
  update permaflow.approval_assignee set is_open = false from ended where approval_id = ended.id;
  get diagnostics closed = row_count;
  if exists (
    select from unnest(run_ids, scopes, nodes, attempts, were_answered) as gone (run_id, scope, node, attempt, answered)
    join permaflow.approval using (run_id, scope, node, attempt)
    join permaflow.question using (run_id, scope, node, attempt)
    where not answered and approval.status in ('approved', 'rejected')
  ) then
    raise exception 'an approval was decided meanwhile' using errcode = 'unique_violation';
  end if;
  return closed;
end $$;

revoke all on function approval_link_by_id(text), close_approvals(uuid[], text[], text[], int[], bool[]) from public;
grant execute on function approval_link_by_id(text) to permaflow_gateway, permaflow_engine;
grant execute on function close_approvals(uuid[], text[], text[], int[], bool[]) to permaflow_engine;

-- Partitions by the time that a UUIDv7 carries -------------------------------------------------------

-- The smallest UUIDv7 of a moment: 48 bits of milliseconds, then zeros.
create function uuid_at(moment timestamptz) returns uuid
language sql immutable strict set search_path = pg_catalog, pg_temp as $$
  select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

create table run_default partition of run default;
create table journal_default partition of journal default;
create table payload_default partition of payload default;
select protect(name::regclass, 'org_id') from unnest(array['run_default', 'journal_default', 'payload_default']) as name;

-- Makes the monthly partitions from the month of `start` on, `months` of them; answers how many were
-- missing. A partition is filled and indexed before it is attached, so that nobody waits for it; rows
-- that went to the default partition meanwhile move over.
create function make_partitions(start timestamptz, months int) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '2s'
as $$
declare
  made int := 0;
  lower_at timestamptz := date_trunc('month', start);
  upper_at timestamptz;
  parent text;
  child text;
  id_column text;
begin
  perform pg_advisory_xact_lock(7102318955102209);
  for month in 1..months loop
    upper_at := lower_at + interval '1 month';
    foreach parent in array array['run', 'journal', 'payload'] loop
      child := parent || '_' || to_char(lower_at, 'YYYYMM');
      id_column := case parent when 'journal' then 'run_id' else 'id' end;
      if to_regclass('permaflow.' || child) is null then
        execute format('create table permaflow.%I (like permaflow.%I including all)', child, parent);
        if parent = 'run' then
          -- Each run leaves dead entries in the small indexes that the reconciler and completion scan.
          execute format('alter table permaflow.%I set (autovacuum_vacuum_scale_factor = 0.02)', child);
        end if;
        perform permaflow.protect(('permaflow.' || child)::regclass, 'org_id');
        execute format('grant select, insert, update, delete on permaflow.%I to permaflow_engine', child);
        execute format('lock table permaflow.%I in access exclusive mode', parent || '_default');
        execute format('with moved as (delete from permaflow.%I where %I >= %L and %I < %L returning *) '
          'insert into permaflow.%I select * from moved', parent || '_default', id_column, permaflow.uuid_at(lower_at),
          id_column, permaflow.uuid_at(upper_at), child);
        execute format('alter table permaflow.%I attach partition permaflow.%I for values from (%L) to (%L)',
          parent, child, permaflow.uuid_at(lower_at), permaflow.uuid_at(upper_at));
        made := made + 1;
      end if;
    end loop;
    lower_at := upper_at;
  end loop;
  return made;
end $$;

-- Drops the oldest month if it ended before `cutoff` and every run in it is finished and counted;
-- answers its name, or null if there is nothing to drop. A month with an open run keeps all later ones,
-- because the open run may still refer to what they hold.
create function drop_oldest_month(cutoff timestamptz) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '2s'
as $$
declare
  month text;
  parent text;
  upper_at timestamptz;
begin
  perform pg_advisory_xact_lock(7102318955102209);
  if not pg_has_role(current_user, 'permaflow_engine', 'usage') then
    raise exception 'the owner % sees no runs', current_user
      using hint = format('grant permaflow_engine to %I', current_user);
  end if;
  select substring(child.relname from '\d{6}$') into month
  from pg_inherits join pg_class child on child.oid = inhrelid
  where inhparent = 'permaflow.run'::regclass and child.relname ~ '^run_\d{6}$'
  order by 1 limit 1;
  upper_at := to_timestamp(month, 'YYYYMM') + interval '1 month';
  if month is null or upper_at > cutoff or exists (
    select from permaflow.run where id < permaflow.uuid_at(upper_at) and (finished_at is null or settled_at is null)
  ) then
    return null;
  end if;
  foreach parent in array array['run', 'journal', 'payload'] loop
    execute format('drop table if exists permaflow.%I', parent || '_' || month);
  end loop;
  delete from permaflow.run where id < permaflow.uuid_at(upper_at);
  delete from permaflow.journal where run_id < permaflow.uuid_at(upper_at);
  delete from permaflow.payload where id < permaflow.uuid_at(upper_at);
  return month;
end $$;

revoke all on function make_partitions(timestamptz, int), drop_oldest_month(timestamptz) from public;
grant execute on function make_partitions(timestamptz, int), drop_oldest_month(timestamptz) to permaflow_engine;
select make_partitions(now() - interval '1 month', 4);
