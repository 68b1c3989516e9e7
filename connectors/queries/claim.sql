-- Takes the key of a write; waits for a transaction that took it and has not ended.
insert into permaflow_target.applied (key) values (%(key)s) on conflict do nothing returning key
