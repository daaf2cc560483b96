-- The server's slots, and whether this role may see other roles' sessions.
SELECT pg_catalog.current_setting('max_connections')::int,
       pg_catalog.current_setting('superuser_reserved_connections')::int,
       coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0),
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       pg_catalog.current_setting('port')::int
