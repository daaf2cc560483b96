-- Names and connection limits of databases; -1 is no limit, and superusers are not held to it.
SELECT d.oid, d.datname, d.datconnlimit
FROM pg_catalog.pg_database AS d
