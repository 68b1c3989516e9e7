-- Keeps what the write gives, for attempts that come again.
update permaflow_target.applied set answer = %(answer)s where key = %(key)s
