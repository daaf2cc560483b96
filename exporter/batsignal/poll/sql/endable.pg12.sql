-- Whose sessions we may end: a superuser's only as one; of the rest those of roles we are a member of, or anybody's with
-- pg_signal_backend. The first row is of nobody in particular.
SELECT NULL, me.rolsuper OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'), me.rolname
FROM pg_catalog.pg_roles AS me
WHERE me.rolname = current_user
UNION ALL
SELECT r.rolname,
       me.rolsuper
       OR NOT r.rolsuper
       AND (pg_catalog.pg_has_role(r.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')),
       NULL
FROM pg_catalog.pg_roles AS r
JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user
WHERE r.rolname = ANY (%(roles)s)
