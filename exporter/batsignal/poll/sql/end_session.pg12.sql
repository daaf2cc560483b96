-- Ends one session, if it is still the one that was looked at and was not used since: pids are reused, and who found
-- work again is nobody's leak any more. No row: it is gone, or another's, or in use again.
SELECT pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_stat_get_activity(%(pid)s) AS a
WHERE a.pid <> pg_catalog.pg_backend_pid()
  AND date_part('epoch', a.backend_start) = %(backend_start)s
  AND a.backend_type = 'client backend'
  AND a.state = %(state)s
  AND (a.state = 'active' OR date_part('epoch', a.state_change) = %(state_change)s)
