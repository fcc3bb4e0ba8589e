-- What the doctor asks the server. Views of other people's sessions show less to roles without pg_read_all_stats.

-- name: server
SELECT current_setting('server_version'), current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
    current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean,
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    pg_notification_queue_usage(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- name: holders
-- Who keeps vacuum from removing dead rows of this database: (kind, name, seconds or null, transactions, how to end it)
SELECT 'session' AS kind, format('%s (%s%s)', a.pid, coalesce(nullif(a.application_name, ''), a.usename), ', ' || a.state),
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8, greatest(age(a.backend_xmin), age(a.backend_xid)),
    format('SELECT pg_terminate_backend(%s)', a.pid)
FROM pg_stat_activity AS a
WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND coalesce(a.backend_xmin, a.backend_xid) IS NOT NULL
    AND a.backend_type <> 'autovacuum worker'
UNION ALL
SELECT 'prepared transaction', quote_literal(p.gid), extract(epoch FROM clock_timestamp() - p.prepared)::float8, age(p.transaction),
    format('ROLLBACK PREPARED %L, or COMMIT PREPARED', p.gid)
FROM pg_prepared_xacts AS p WHERE p.database = current_database()
UNION ALL
SELECT 'replication slot', format('%s (%s)', s.slot_name, CASE WHEN s.active THEN 'active' ELSE 'nobody uses it' END), NULL, age(s.xmin),
    format('SELECT pg_drop_replication_slot(%L), if its standby is gone', s.slot_name)
FROM pg_replication_slots AS s WHERE s.xmin IS NOT NULL
UNION ALL
SELECT 'standby', coalesce(nullif(r.application_name, ''), r.client_addr::text), NULL, age(r.backend_xmin),
    'hot_standby_feedback = off there, or shorter queries'
FROM pg_stat_replication AS r WHERE r.backend_xmin IS NOT NULL
ORDER BY 4 DESC

-- name: tables
-- (name, live rows, dead rows, bytes, bytes that its rows need, autovacuum is on) of the tables that every job goes through
SELECT c.relname, s.n_live_tup, s.n_dead_tup, pg_table_size(c.oid),
    CASE WHEN has_table_privilege(c.oid, 'SELECT') THEN (greatest(c.reltuples, 0) * (32 + (
        SELECT coalesce(sum(t.avg_width), 0) FROM pg_stats AS t WHERE t.schemaname = 'dayjob' AND t.tablename = c.relname)))::bigint
        ELSE pg_table_size(c.oid) END,
    coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) AS o
        WHERE o.option_name = 'autovacuum_enabled'), true)
FROM pg_class AS c JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.relnamespace = 'dayjob'::regnamespace
    AND c.relname IN ('job', 'ready', 'lease', 'arrival', 'level', 'cluster', 'worker', 'total', 'sample')
ORDER BY s.n_dead_tup DESC, c.relname

-- name: sizes
-- (bytes of the history, bytes of all the rest)
SELECT coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname LIKE 'history%'), 0)::bigint,
    coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname NOT LIKE 'history%'), 0)::bigint
FROM pg_class AS c WHERE c.relnamespace = 'dayjob'::regnamespace AND c.relkind = 'r'

-- name: days
-- (number of the history's days, the first, the last, whether the first should have gone)
SELECT count(*), min(d.day)::text, max(d.day)::text, min(d.day) < (clock_timestamp() AT TIME ZONE 'UTC')::date - 2 FROM (
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'dayjob.history'::regclass AND c.relname ~ '_[0-9]{8}$') AS d
