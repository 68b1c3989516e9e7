-- Approvals whose runs are paused. pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

alter table approval
  add column held_at   timestamptz,
  add column held_for  interval not null default '0';
grant update (held_at, held_for, expires_at) on approval to permaflow_gateway;

-- Ends approvals whose steps are over. One that was decided, while its step ends for another reason, is a conflict:
-- its answer counts, and the run has to take it in first.
create or replace function close_approvals(run_ids uuid[], scopes text[], nodes text[], attempts int[],
  were_answered bool[]) returns int
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
