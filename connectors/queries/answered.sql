-- What the write with this key gave.
select answer::text from permaflow_target.applied where key = %(key)s
