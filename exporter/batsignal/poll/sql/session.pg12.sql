-- Makes this session a polite guest. Run once after connecting, where the session is our own (`pooled` elsewhere).
SELECT pg_catalog.set_config('statement_timeout', %(statement_timeout_ms)s::text, false),
       pg_catalog.set_config('lock_timeout', %(lock_timeout_ms)s::text, false),
       pg_catalog.set_config('default_transaction_read_only', 'on', false),
       pg_catalog.set_config('search_path', 'pg_catalog', false),
       pg_catalog.set_config('jit', 'off', false),
       -- Instants are compared with what they were, to the microsecond: a default of 0 or less would round them away.
       pg_catalog.set_config('extra_float_digits', '1', false),
       -- PostgreSQL 14+: a seat that is looked from once a minute must not be taken for one that nobody uses.
       CASE
           WHEN pg_catalog.current_setting('idle_session_timeout', true) IS NOT NULL
           THEN pg_catalog.set_config('idle_session_timeout', '0', false)
       END,
       -- Of a client whose machine or network is gone the server learns nothing by itself for two hours.
       pg_catalog.set_config('tcp_keepalives_idle', '10', false),
       pg_catalog.set_config('tcp_keepalives_interval', '5', false),
       pg_catalog.set_config('tcp_keepalives_count', '3', false),
       pg_catalog.set_config('tcp_user_timeout', '20000', false)
