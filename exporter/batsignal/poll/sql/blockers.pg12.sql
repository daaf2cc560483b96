-- Who blocks whom: asked only for sessions that wait for a lock, because each call takes every lock-manager partition.
SELECT w.pid, pg_catalog.pg_blocking_pids(w.pid)
FROM unnest(%(pids)s::int[]) AS w(pid)
