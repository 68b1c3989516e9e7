-- Approvals: what people were asked, who decided what, and groups of users. pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

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

select protect(name::regclass, 'org_id') from unnest(array['user_group', 'user_group_member', 'approval',
  'approval_assignee', 'approval_event', 'approval_link']) as name;
grant select, insert, update, delete on user_group, user_group_member, approval, approval_assignee, approval_link
  to permaflow_engine;
grant select, insert, delete on approval_event to permaflow_engine;
grant select, insert, update, delete on user_group, user_group_member to permaflow_gateway;
grant select, insert on approval_event, approval_link to permaflow_gateway;
grant select on approval to permaflow_gateway;
grant update (status, closed_at, closed_by, next_at) on approval to permaflow_gateway;
grant select, insert on approval_assignee to permaflow_gateway;
grant update (is_open) on approval_assignee to permaflow_gateway;

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
    set status = case when expires_at <= clock_timestamp() + interval '1 second' then 'timed_out' else 'withdrawn' end,
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
