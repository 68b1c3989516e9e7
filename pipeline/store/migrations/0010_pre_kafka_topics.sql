-- Which log the offsets of a Kafka partition belong to.
-- pipeline/store/schema.sql explains every table.

set local search_path = permaflow, pg_catalog;

alter table kafka_offset add column log_id text not null default '';
