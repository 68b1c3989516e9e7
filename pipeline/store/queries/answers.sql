-- name: give
-- Answers questions that are open; the first answer to each is kept, and comes back.
with given as (
  select * from unnest(%(questions)b::uuid[], %(outputs)b::text[], %(refs)b::uuid[], %(ports)b::text[],
    %(codes)b::text[], %(messages)b::text[], %(retryable)b::bool[], %(details)b::text[])
    as row (question_id, output, output_ref, port, code, message, retryable, details)
)
insert into permaflow.answer (question_id, org_id, run_id, scope, node, attempt, output, output_ref, port, code,
  message, retryable, details)
select question_id, org_id, run_id, scope, node, attempt, output::json, output_ref, port, code, message, retryable,
  details::json
from given join permaflow.question on question.id = question_id
order by question_id
on conflict do nothing
returning question_id, org_id as org, run_id, scope, node, attempt, output, output_ref, port, code, message, retryable,
  details;

-- name: overdue
-- Answers that no orchestrator has taken for `after` seconds, oldest first.
select question_id, org_id as org, run_id, scope, node, attempt, output, output_ref, port, code, message, retryable, details
from permaflow.answer
where at < statement_timestamp() - make_interval(secs => %(after)s)
order by at
limit %(limit)s;

-- name: of_runs
-- Answers that wait for these runs.
select question_id, org_id, run_id, scope, node, attempt, output::text, output_ref, port, code, message, retryable,
  details::text
from permaflow.answer where run_id = any(%s);

-- name: forget
-- Forgets answers that came too late: their runs have ended, for more than `after` seconds.
delete from permaflow.answer
where at < statement_timestamp() - make_interval(secs => %(after)s) and not exists (
  select from permaflow.run where run.id = answer.run_id and run.finished_at is null);
