-- Makes this session a polite guest, and asks who we are to the server. Run once after connecting.
SELECT pg_catalog.set_config('statement_timeout', %(statement_timeout_ms)s::text, false),
       pg_catalog.set_config('lock_timeout', %(lock_timeout_ms)s::text, false),
       pg_catalog.set_config('default_transaction_read_only', 'on', false),
       pg_catalog.set_config('search_path', 'pg_catalog', false),
       pg_catalog.set_config('jit', 'off', false),
       pg_catalog.pg_backend_pid(),
       pg_catalog.current_setting('server_version_num')::int,
       date_part('epoch', pg_catalog.pg_postmaster_start_time())
