-- name: insert
-- An organisation; one that has this slug stays as it is.
insert into permaflow.org (id, slug, name) values (%(id)s, %(slug)s, %(name)s)
on conflict (slug) do nothing;

-- name: by_slug
-- The organisation with this slug; found before the organisation is known.
select id, slug, name from permaflow.org_by_slug(%(slug)s);

-- name: list
-- All organisations.
select id, slug, name from permaflow.org order by slug;
