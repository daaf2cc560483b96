-- The server's slots, who we are there (a pooler may log in as another), and what this role may: see other roles' sessions, take a slot that others are kept out of.
-- 4550 is pg_use_reserved_connections: by its number, for servers before 16 do not know the name.
SELECT pg_catalog.current_setting('max_connections')::int,
       pg_catalog.current_setting('superuser_reserved_connections')::int,
       coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0),
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       pg_catalog.current_setting('port')::int,
       pg_catalog.pg_has_role(current_user, 4550::oid, 'USAGE'),
       current_user::text
