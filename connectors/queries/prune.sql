-- Forgets writes that are so old that no attempt can come again.
delete from permaflow_target.applied where at < clock_timestamp() - %(age)s::interval
