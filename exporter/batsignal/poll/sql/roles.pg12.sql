-- Names of the roles in use and all roles with a connection limit; -1 is no limit, and superusers are not held to it.
SELECT r.oid, r.rolname, CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END
FROM pg_catalog.pg_roles AS r
WHERE r.rolconnlimit >= 0 OR r.oid = ANY (%(roles)s::oid[])
