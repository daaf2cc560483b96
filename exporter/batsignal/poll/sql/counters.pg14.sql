-- Sums over pg_stat_database without the view, which reads pg_database.
SELECT sum(pg_catalog.pg_stat_get_db_sessions(d.oid))::float8,
       sum(pg_catalog.pg_stat_get_db_xact_commit(d.oid))::float8
FROM unnest(%(databases)s::oid[]) AS d(oid)
