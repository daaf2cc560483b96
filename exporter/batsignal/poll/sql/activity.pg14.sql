-- Every session, from the function under pg_stat_activity: the view joins pg_authid and pg_database and stalls under
-- their locks, the function does not. Names come from a cache. The text is sent only where it may have changed since
-- %(since)s (Unix seconds): it changes together with query_start or state_change, and is most of the bytes. A long one
-- is cut as bytes: left() fails on texts of databases in other encodings.
SELECT a.pid,
       date_part('epoch', a.backend_start),
       a.state,
       a.datid,
       a.usesysid,
       a.application_name,
       a.client_addr,
       date_part('epoch', a.xact_start),
       date_part('epoch', a.query_start),
       date_part('epoch', a.state_change),
       a.wait_event_type,
       a.wait_event,
       a.query_id::text,
       a.backend_type,
       a.backend_xid,
       a.backend_xmin,
       a.leader_pid,
       CASE
           WHEN greatest(a.query_start, a.state_change) >= to_timestamp(%(since)s) AND octet_length(a.query) <= 4096
           THEN a.query
       END,
       CASE
           WHEN greatest(a.query_start, a.state_change) >= to_timestamp(%(since)s) AND octet_length(a.query) > 4096
           THEN substring(pg_catalog.textsend(a.query) FROM 1 FOR 4096)
       END
FROM pg_catalog.pg_stat_get_activity(NULL) AS a
-- Behind a pooler it is another backend of ours each time.
WHERE a.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
