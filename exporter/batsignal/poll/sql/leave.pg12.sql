-- Ends a session of ours that was left behind, if it is still the same one. Run once after connecting.
SELECT pg_catalog.pg_terminate_backend(pid)
  FROM pg_catalog.pg_stat_get_activity(%(pid)s::int)
 WHERE date_part('epoch', backend_start) = %(backend_start)s::float8
   AND usesysid = (SELECT usesysid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()))
