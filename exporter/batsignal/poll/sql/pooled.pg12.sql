-- What goes before each statement behind a pooler, in the same message and so in the same transaction, with which it
-- ends: the session there is lent to others afterwards.
SELECT pg_catalog.set_config('statement_timeout', %(statement_timeout_ms)s::text, true),
       pg_catalog.set_config('lock_timeout', %(lock_timeout_ms)s::text, true),
       pg_catalog.set_config('transaction_read_only', 'on', true),
       pg_catalog.set_config('search_path', 'pg_catalog', true),
       pg_catalog.set_config('jit', 'off', true),
       pg_catalog.set_config('extra_float_digits', '1', true)
