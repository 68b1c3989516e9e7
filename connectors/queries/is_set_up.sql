-- Whether setup.sql has been run.
select to_regclass('permaflow_target.applied') is not null
