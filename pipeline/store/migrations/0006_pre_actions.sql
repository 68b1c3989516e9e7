-- What actions leave behind: notifications for people, documents, and the secrets that steps refer to.
set local search_path = permaflow, pg_catalog;

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
  primary key (org_id, name)
);

select protect(name::regclass, 'org_id')
from unnest(array['notification_box', 'notification', 'document', 'secret']) as name;
grant select, insert, update, delete on notification_box, notification, document, secret to permaflow_engine;
grant select on notification, document to permaflow_gateway;
grant update (read_at) on notification to permaflow_gateway;
grant insert, update, delete on secret to permaflow_gateway;
grant select (org_id, name, updated_by, updated_at) on secret to permaflow_gateway;
