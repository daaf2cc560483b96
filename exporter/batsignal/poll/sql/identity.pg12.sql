-- Who answers: asked first on every new session, and changes nothing there.
SELECT pg_catalog.pg_backend_pid(),
       pg_catalog.current_setting('server_version_num')::int,
       pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())
