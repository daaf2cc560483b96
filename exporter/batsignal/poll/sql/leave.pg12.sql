-- Ends what we have left behind on a dead network, known by our own address and ports. Asked after such a loss only.
SELECT pg_catalog.pg_terminate_backend(a.pid)
  FROM pg_catalog.pg_stat_get_activity(NULL) AS a, pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS own
 WHERE a.pid <> own.pid
   AND a.usesysid = own.usesysid
   AND a.application_name = own.application_name
   AND a.client_addr = own.client_addr
   AND a.client_port = ANY(%(ports)s::int[])
