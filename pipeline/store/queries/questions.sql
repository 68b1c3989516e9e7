-- name: ask
-- Puts questions.
insert into permaflow.question (id, run_id, scope, node, attempt, org_id, config, kind)
select id, run_id, scope, node, attempt, org_id, config::json, kind
from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int4[], %b::uuid[], %b::text[], %b::text[])
  as asked (id, run_id, scope, node, attempt, org_id, config, kind);

-- name: withdraw
-- Ends questions, and forgets the answers to them.
with gone (run_id, scope, node, attempt) as materialized (
  select * from unnest(%b::uuid[], %b::text[], %b::text[], %b::int4[])
), forgotten as (
  delete from permaflow.answer using gone
  where answer.run_id = gone.run_id and answer.scope = gone.scope and answer.node = gone.node
    and answer.attempt = gone.attempt
)
delete from permaflow.question using gone
where question.run_id = gone.run_id and question.scope = gone.scope and question.node = gone.node
  and question.attempt = gone.attempt;

-- name: end
-- Ends all questions of these runs, and forgets the answers to them.
with ended as materialized (
  select unnest(%b::uuid[]) as id
), forgotten as (
  delete from permaflow.answer using ended where answer.run_id = ended.id
)
delete from permaflow.question using ended where question.run_id = ended.id;

-- name: open
-- What a step asks at this moment, of one kind.
select id from permaflow.question
where run_id = %(run_id)s and org_id = %(org)s and scope = %(scope)s and node = %(node)s and kind = %(kind)s
order by attempt desc
limit 1;
