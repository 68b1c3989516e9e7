-- name: claim
-- Takes partitions over: whoever held them before can no longer advance them.
insert into permaflow.kafka_offset as held (group_id, topic, partition)
select %(group)s, topic, partition
from unnest(%(topics)s::text[], %(partitions)s::int4[]) as row (topic, partition)
order by topic, partition
on conflict (group_id, topic, partition) do update set generation = held.generation + 1
returning topic, partition, next_offset, generation as fence, log_id as log;

-- name: begin
-- Says of partitions that are held with this fence which log they are, and where it is read from.
update permaflow.kafka_offset as held
set next_offset = row.next_offset, log_id = row.log
from unnest(%(topics)s::text[], %(partitions)s::int4[], %(offsets)s::int8[], %(fences)s::int4[], %(logs)s::text[])
  as row (topic, partition, next_offset, fence, log)
where held.group_id = %(group)s and held.topic = row.topic and held.partition = row.partition
  and held.generation = row.fence;

-- name: advance
-- Moves partitions forward, those that are still held with this fence.
with wanted as materialized (
  select held.topic, held.partition, row.next_offset
  from unnest(%(topics)s::text[], %(partitions)s::int4[], %(offsets)s::int8[], %(fences)s::int4[])
    as row (topic, partition, next_offset, fence)
  join permaflow.kafka_offset as held
    on held.group_id = %(group)s and held.topic = row.topic and held.partition = row.partition
    and held.generation = row.fence and coalesce(held.next_offset, 0) <= row.next_offset
  order by held.topic, held.partition
  for update of held
)
update permaflow.kafka_offset as held
set next_offset = wanted.next_offset
from wanted
where held.group_id = %(group)s and held.topic = wanted.topic and held.partition = wanted.partition;

-- name: list
-- How far a group has read.
select topic, partition, next_offset, generation as fence, log_id as log
from permaflow.kafka_offset
where group_id = %(group)s
order by topic, partition;
