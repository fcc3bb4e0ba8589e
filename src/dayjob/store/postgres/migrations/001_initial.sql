-- Everything dayjob keeps in one schema, named after the namespace.
CREATE SEQUENCE dayjob.entry AS bigint;

-- The store's clock, in microseconds since 1970 (P6). Not now(): a long transaction would stand still.
CREATE FUNCTION dayjob.clock() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- How far the parts of the schema are applied: all that a role needs to know that may do nothing but enqueue.
CREATE FUNCTION dayjob.versions(OUT pre integer, OUT post integer) LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(max(version) FILTER (WHERE part = 'pre'), 0), coalesce(max(version) FILTER (WHERE part = 'post'), 0)
    FROM dayjob.schema
$$;

-- The live jobs. A claim does not touch them: `available` stands for running, too, and open leases tell which run.
-- `entry` is the fence: every exit but success gives a new one, so a stale writer finds nothing. `place` orders a queue
-- and survives release, loss and crash. Only `id`, and the rare states, are indexed, so that most updates stay in their page.
-- What everybody's look at many jobs must be able to read is checked for whoever writes it.
CREATE TABLE dayjob.job (
    id uuid PRIMARY KEY,
    entry bigint NOT NULL,
    place bigint NOT NULL,
    created_at bigint NOT NULL,
    run_at bigint NOT NULL,
    expires_at bigint,
    priority integer NOT NULL,
    max_attempts integer,
    attempt integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    round integer NOT NULL DEFAULT 0,
    parked integer NOT NULL DEFAULT 0,
    suspect boolean NOT NULL DEFAULT false,
    recorded boolean NOT NULL DEFAULT false,
    cancelling boolean NOT NULL DEFAULT false,
    state text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    tags text CHECK (jsonb_typeof(tags::jsonb) = 'array'),
    meta text CHECK (json_typeof(meta::json) = 'object'),
    options bytea,
    reason text,
    progress text
) WITH (
    fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX job_due ON dayjob.job (run_at) INCLUDE (queue) WHERE state = 'scheduled';
CREATE INDEX job_expires ON dayjob.job (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX job_cancelling ON dayjob.job (id) WHERE cancelling;

-- What can be claimed, narrow, deleted when claimed. kind 0: in the order of arrival; 1: come back to an old place; 2: suspects.
-- Rows of kind 0 get rising places in short transactions, so a claim need not look below where it has been (floors.py): dead
-- rows that vacuum may not remove yet cost nothing. Whoever writes here holds the table's lock from before he takes a place
-- until his row is there to see, and that is how a claim knows that nobody will come below a place any more.
CREATE TABLE dayjob.ready (
    place bigint NOT NULL,
    entry bigint NOT NULL,
    id uuid NOT NULL,
    priority integer NOT NULL,
    kind smallint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    PRIMARY KEY (queue, priority, kind, place)
) WITH (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.5,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0
);

-- Which (queue, priority, kind) were in `ready` of late: one look into its index for each. Every claim reads all of it, so a
-- row is rewritten once an hour at most, and goes three hours later when nothing is left there; its `floor`, where a new
-- process begins and whoever asks for the oldest looks, is rewritten after so many places that it pays.
CREATE TABLE dayjob.level (
    queue text COLLATE "C" NOT NULL, priority integer NOT NULL, kind smallint NOT NULL, used_at bigint NOT NULL,
    floor bigint NOT NULL DEFAULT 0, PRIMARY KEY (queue, priority, kind)
) WITH (fillfactor = 50);

-- Empty after a crash of the server, on a standby that takes over and in most restored backups (a dump takes it along): what
-- processes remember of the time before is void then, as the last claims may have been taken back (see `claim`).
CREATE UNLOGGED TABLE dayjob.incarnation (id uuid PRIMARY KEY DEFAULT gen_random_uuid());

-- Jobs that came in a caller's transaction, which may have been long: their places are given when somebody sees them.
CREATE TABLE dayjob.arrival (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(), entry bigint NOT NULL, id uuid NOT NULL, PRIMARY KEY (xid, entry)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- One row per claimed batch; `open` counts what has not left it. A batch of 500 is 12 kB, stored aside as it is.
CREATE TABLE dayjob.lease (
    worker text COLLATE "C" NOT NULL,
    claim_no bigint NOT NULL,
    claimed_at bigint NOT NULL,
    open integer NOT NULL,
    ids uuid[] NOT NULL,
    entries bigint[] NOT NULL,
    PRIMARY KEY (worker, claim_no)
) WITH (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE dayjob.lease ALTER ids SET STORAGE EXTERNAL, ALTER entries SET STORAGE EXTERNAL;

-- The finished jobs, in a partition for each day on which they may go; those that never go by themselves (the dead), or only
-- after two months, in one of their own: hundreds of partitions would make every look into the history slow. What is to be
-- kept for a thousand years is kept for ever.
CREATE TABLE dayjob.history (
    id uuid NOT NULL,
    entry bigint NOT NULL,
    created_at bigint NOT NULL,
    run_at bigint NOT NULL,
    expires_at bigint,
    started_at bigint,
    finished_at bigint NOT NULL,
    keep_until bigint,
    goes date NOT NULL,
    priority integer NOT NULL,
    max_attempts integer,
    attempt integer NOT NULL,
    crashes integer NOT NULL,
    round integer NOT NULL,
    recorded boolean NOT NULL,
    state text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    result bytea,
    error bytea,
    tags text,
    meta text,
    options bytea,
    reason text,
    worker text COLLATE "C",
    progress text
) PARTITION BY RANGE (goes);
CREATE INDEX history_id ON dayjob.history (id);
CREATE INDEX history_finished ON dayjob.history (state, queue, finished_at);
-- Also those whose day had no partition when they were completed in a caller's transaction: they go one by one.
CREATE TABLE dayjob.history_kept PARTITION OF dayjob.history FOR VALUES FROM ('infinity') TO (MAXVALUE);
-- Kept for less than a day: deleted one by one when their time is over. All others go with their partition.
CREATE INDEX history_brief ON dayjob.history (keep_until) WHERE keep_until < finished_at + 86400000000;

CREATE INDEX history_kept_until ON dayjob.history_kept (keep_until) WHERE keep_until IS NOT NULL;

-- How many finished jobs there are, by the day they go: every change appends, the leader folds them together.
CREATE TABLE dayjob.total (goes date NOT NULL, queue text COLLATE "C" NOT NULL, state text COLLATE "C" NOT NULL, jobs bigint NOT NULL);

-- Ids that left the history less than an hour after they finished: a repeated enqueue must still find them.
CREATE TABLE dayjob.gone (id uuid NOT NULL, until bigint NOT NULL);
CREATE INDEX gone_id ON dayjob.gone (id);
CREATE INDEX gone_until ON dayjob.gone (until);

-- What a job left behind, by its id.
CREATE TABLE dayjob.attempt (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    number integer NOT NULL,
    round integer NOT NULL,
    outcome text NOT NULL,
    started_at bigint,
    finished_at bigint NOT NULL,
    worker text COLLATE "C",
    error bytea,
    reason text
);
CREATE INDEX attempt_id ON dayjob.attempt (id, no);
CREATE TABLE dayjob.log (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL, at bigint NOT NULL, level text NOT NULL, message text NOT NULL
);
CREATE INDEX log_id ON dayjob.log (id, no);
CREATE TABLE dayjob.checkpoint (id uuid PRIMARY KEY, value bytea NOT NULL);

-- One row: which installation this is, the version of controls, live time, and who leads.
CREATE TABLE dayjob.cluster (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    control bigint NOT NULL DEFAULT 0,
    live bigint NOT NULL DEFAULT 0,
    beat_at bigint NOT NULL DEFAULT 0,
    term bigint NOT NULL DEFAULT 0,
    leader text
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 100);
INSERT INTO dayjob.cluster DEFAULT VALUES;

-- Where this is: the installation, and the database, as one installation may have been copied into several.
CREATE FUNCTION dayjob.home() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT c.id || '/' || current_database() FROM dayjob.cluster AS c WHERE c.one $$;

-- Fails when the process that calls has its jobs elsewhere than at *home*: it was given another connection than it believes,
-- and what it wrote here nobody would find.
CREATE FUNCTION dayjob.require_home(home text) RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    IF home <> dayjob.home() THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_catalog_name', MESSAGE = format('this connection is to the database %s on %s',
            current_database(), coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a local socket'));
    END IF;
END $$;

-- Workers; one that was given up stays for a day, so that its late beat learns it, and in any case as long as it has leases:
-- also one that *resigned* in good order while somebody else held a row of its jobs.
CREATE TABLE dayjob.worker (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    solo boolean NOT NULL,
    info bytea NOT NULL,
    started_at bigint NOT NULL,
    beat_at bigint NOT NULL,
    expires bigint NOT NULL,
    lost_at bigint,
    resigned boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 200);

CREATE TABLE dayjob.paused (queue text COLLATE "C" PRIMARY KEY);

-- Counts and samples, one row per minute, queue and name.
CREATE TABLE dayjob.sample (
    at bigint NOT NULL, queue text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, value double precision NOT NULL, PRIMARY KEY (at, queue, name)
);

CREATE TABLE dayjob.record (
    kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, value bytea NOT NULL, version bigint NOT NULL, expires_at bigint, PRIMARY KEY (kind, key)
);

-- A day's partition of the history, made aside and attached: no reader of the history has to end for it.
CREATE FUNCTION dayjob.add_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE name text COLLATE "C" := 'history_' || to_char(day, 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('dayjob.history'), 1);
    IF to_regclass('dayjob.' || name) IS NULL THEN
        EXECUTE format('CREATE TABLE dayjob.%I (LIKE dayjob.history INCLUDING DEFAULTS)', name);
        EXECUTE format('ALTER TABLE dayjob.%I SET (autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 0.2)', name);
        EXECUTE format('ALTER TABLE dayjob.history ATTACH PARTITION dayjob.%I FOR VALUES FROM (%L) TO (%L)', name, day, day + 1);
    END IF;
END $$;

-- Ends a day's partition; how many jobs it had. Waits no longer than the caller's lock_timeout for readers of the history.
CREATE FUNCTION dayjob.drop_day(day date) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE jobs bigint;
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS dayjob.%I', 'history_' || to_char(day, 'YYYYMMDD'));
    WITH gone AS (DELETE FROM dayjob.total AS t WHERE t.goes = day RETURNING t.jobs)
    SELECT coalesce(sum(g.jobs), 0) INTO jobs FROM gone AS g;
    RETURN jobs;
END $$;

-- How many jobs are waiting and running, by queue and state. Exact up to a million of a kind; of more, the first million are
-- counted and the rest is estimated from the server's statistics, so that nobody who looks has to wait for ten millions.
CREATE FUNCTION dayjob.depths() RETURNS TABLE (queue text, state text, jobs bigint) LANGUAGE sql STABLE
AS $$
    WITH waiting AS (
        SELECT 'available' AS state, 'dayjob.ready_pkey'::regclass AS index, r.queue
        FROM (SELECT r.queue FROM dayjob.ready AS r LIMIT 1000000) AS r
        UNION ALL
        SELECT 'scheduled', 'dayjob.job_due'::regclass, j.queue
        FROM (SELECT j.queue FROM dayjob.job AS j WHERE j.state = 'scheduled' ORDER BY j.run_at LIMIT 1000000) AS j
    ), counted AS (
        SELECT w.state, w.index, w.queue, count(*) AS jobs, sum(count(*)) OVER (PARTITION BY w.state) AS seen
        FROM waiting AS w GROUP BY w.state, w.index, w.queue
    )
    SELECT c.queue, c.state, CASE WHEN c.seen < 1000000 THEN c.jobs
        ELSE (c.jobs * greatest((SELECT i.reltuples::numeric FROM pg_class AS i WHERE i.oid = c.index) / c.seen, 1))::bigint END
    FROM counted AS c
    UNION ALL
    SELECT j.queue, 'available', count(*) FROM dayjob.arrival AS a CROSS JOIN LATERAL (  -- OFFSET 0: never from the jobs' side
        SELECT j.queue FROM dayjob.job AS j WHERE j.id = a.id AND j.entry = a.entry AND j.state = 'available' OFFSET 0) AS j
    GROUP BY j.queue
    UNION ALL
    SELECT j.queue, 'running', count(*) FROM dayjob.lease AS l CROSS JOIN LATERAL unnest(l.ids, l.entries) AS u (id, entry)
    CROSS JOIN LATERAL (SELECT j.queue FROM dayjob.job AS j WHERE j.id = u.id AND j.entry = u.entry OFFSET 0) AS j
    WHERE l.open > 0 GROUP BY j.queue
$$;

-- True when nobody holds the lock that says that he listens for *topic*. Tried and let go at once: held until the commit, it
-- would make everybody who looks meanwhile believe that there is a listener.
CREATE FUNCTION dayjob.nobody(topic integer) RETURNS boolean LANGUAGE sql VOLATILE
AS $$
    SELECT CASE WHEN pg_try_advisory_lock(hashtext('dayjob'), topic) THEN pg_advisory_unlock(hashtext('dayjob'), topic)
        ELSE false END
$$;

-- Jobs kept for no time at all leave only their ids, *until* a repeated enqueue need not find them any more. STRICT: it costs
-- nothing where there are none, as nearly always.
CREATE FUNCTION dayjob.forget(jobs uuid[], until bigint) RETURNS void LANGUAGE plpgsql STRICT
AS $$
BEGIN
    DELETE FROM dayjob.attempt WHERE id = ANY (jobs);
    DELETE FROM dayjob.log WHERE id = ANY (jobs);
    DELETE FROM dayjob.checkpoint WHERE id = ANY (jobs);
    INSERT INTO dayjob.gone (id, until) SELECT u.id, forget.until FROM unnest(jobs) AS u (id);
END $$;

-- Claims of one namespace take turns: a claim is a millisecond, all of it inside the server, and alone it sees every row
-- as it is. Whatever else moves rows of `ready` about takes the same lock first, before any row's. A process that stands still
-- between two statements of such a transaction does not keep the turn from all the others for longer than two seconds.
CREATE FUNCTION dayjob.take_turn() RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', '2s', true);
    PERFORM pg_advisory_xact_lock(hashtext('dayjob'), 1);
END $$;

-- Jobs of callers' transactions that have ended since *seen* was taken become claimable, those of them that are due, too: their
-- time may lie below everybody's floor. The caller has the turn.
CREATE FUNCTION dayjob.admit_arrivals(seen pg_snapshot, moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    WITH came AS (  -- by an array: to join them, the planner may walk over all dead rows of `arrival`
        DELETE FROM dayjob.arrival AS a WHERE a.xid = ANY (ARRAY(
            SELECT b.xid FROM dayjob.arrival AS b WHERE b.xid >= coalesce(pg_snapshot_xmax(seen), '0'::xid8)
            UNION SELECT x FROM pg_snapshot_xip(seen) AS x)) RETURNING a.id, a.entry
    ), numbered AS MATERIALIZED (
        SELECT id, entry, nextval('dayjob.entry') AS place FROM (SELECT id, entry FROM came ORDER BY entry) AS c
    ), job AS (
        UPDATE dayjob.job AS j SET state = 'available', entry = n.place, place = n.place FROM numbered AS n
        WHERE j.id = n.id AND j.entry = n.entry AND (j.state = 'available' OR (j.state = 'scheduled' AND j.run_at <= moment))
        RETURNING j.id, j.entry, j.place, j.queue, j.priority
    ), known AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, 0, moment FROM (SELECT DISTINCT queue, priority FROM job) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = 0
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    )
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) SELECT place, entry, id, priority, 0, queue FROM job;
END $$;

-- Up to *most* jobs that are due become available, in the order of their time. The caller has the turn.
CREATE FUNCTION dayjob.stage_due(moment bigint, since bigint, most integer) RETURNS integer LANGUAGE plpgsql
AS $$
DECLARE staged integer;
BEGIN
    PERFORM 1 FROM dayjob.job WHERE state = 'scheduled' AND run_at >= since AND run_at <= moment LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH due AS MATERIALIZED (
        SELECT id, entry, nextval('dayjob.entry') AS place FROM (
            SELECT id, entry FROM dayjob.job WHERE state = 'scheduled' AND run_at >= since AND run_at <= moment
            ORDER BY run_at, entry LIMIT most) AS d
    ), job AS (
        UPDATE dayjob.job AS j SET state = 'available', entry = d.place, place = d.place FROM due AS d
        WHERE j.id = d.id AND j.entry = d.entry AND j.state = 'scheduled'
        RETURNING j.id, j.place, j.queue, j.priority, j.suspect
    ), known AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, n.kind, moment
        FROM (SELECT DISTINCT queue, priority, CASE WHEN suspect THEN 2 ELSE 0 END AS kind FROM job) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    ), stored AS (
        INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
        SELECT place, place, id, priority, CASE WHEN suspect THEN 2 ELSE 0 END, queue FROM job RETURNING 1
    )
    SELECT count(*) INTO staged FROM stored;
    RETURN staged;
END $$;

-- Runs, as all that only our own sessions call, under their settings (`SETTINGS` in database.py), not under SETs of its own.
-- Stage, then claim for *wants* under *number*; `fetch` reads what was claimed. Nothing of it needs to wait for the disk:
-- what a crash of the server takes back is available again.
--   wants: [{"queues": [..] or null, "exclude": [..], "limit": n, "suspects": bool, "id": uuid or null}, ..]
--   floors: places below which no unclaimed row of kind 0 can be, by queue and priority; due_floor: the same for due times
--   seen: the snapshot of the last call, when all arrivals were admitted
--   check: tell who writes to `ready` at this moment, and the incarnation; keep floors that have risen far
--   known: the incarnation of which the floors speak; those of another one, or above the last place, are void
-- Answers also `top`, the last place given away; `more`: not all that is due was staged; `levels`: up to which place nothing
-- unclaimed was seen, by queue and priority; `heard`: who listens to what (signals.py).
CREATE FUNCTION dayjob.claim(
    by_worker text, number bigint, at bigint, wants jsonb,
    floor_queues text[], floor_priorities integer[], floors bigint[], due_floor bigint, seen pg_snapshot, "check" boolean,
    known text,
    OUT moment bigint, OUT control bigint, OUT next_due bigint, OUT suspects boolean, OUT claimed integer, OUT top bigint,
    OUT snapshot pg_snapshot, OUT levels jsonb, OUT heard integer, OUT more boolean, OUT writers text[], OUT incarnation text
) LANGUAGE plpgsql
AS $$
DECLARE
    want record;
    picked_ids uuid[];
    picked_entries bigint[];
    all_ids uuid[] := '{}';
    all_entries bigint[] := '{}';
    reached jsonb;
    known_floors jsonb;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(hashtext('dayjob'), 1);
    moment := coalesce(at, dayjob.clock());
    snapshot := pg_current_snapshot();
    SELECT last_value INTO top FROM dayjob.entry;
    IF "check" THEN  -- after the top was read: who got a place up to it either writes still, or has ended and is seen from here on
        SELECT coalesce(array_agg(DISTINCT w.virtualtransaction), '{}') INTO writers FROM pg_locks AS w
        WHERE w.locktype = 'relation' AND w.relation = 'dayjob.ready'::regclass AND w.mode IN ('RowShareLock', 'RowExclusiveLock')
            AND w.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND w.pid IS DISTINCT FROM pg_backend_pid();
    END IF;
    PERFORM dayjob.admit_arrivals(seen, moment);
    IF "check" THEN  -- not before something was written: a standby refuses that first, with an error that says what it is
        SELECT i.id INTO incarnation FROM dayjob.incarnation AS i;
        IF NOT FOUND THEN
            INSERT INTO dayjob.incarnation DEFAULT VALUES RETURNING id INTO incarnation;
        END IF;
        -- A dump takes the id along: the numbers tell what was restored from it, and the server's start a copy of its files.
        incarnation := concat_ws(' ', incarnation, 'dayjob.incarnation'::regclass::oid,
            (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()), extract(epoch FROM pg_postmaster_start_time()));
        IF known IS DISTINCT FROM incarnation THEN
            floor_queues := '{}';
            floor_priorities := '{}';
            floors := '{}';
            due_floor := 0;
        END IF;
        UPDATE dayjob.level AS l SET floor = f.floor FROM unnest(floor_queues, floor_priorities, floors) AS f (queue, priority, floor)
        WHERE l.queue = f.queue AND l.priority = f.priority AND l.kind = 0 AND f.floor <= top
            AND (l.floor < f.floor - 50000 OR l.floor > top);
    END IF;
    more := dayjob.stage_due(moment, due_floor, 1000) >= 1000;
    known_floors := (  -- to look one up is no walk over all: a queue for each customer makes thousands
        SELECT jsonb_object_agg(f.priority || ' ' || f.queue, f.floor)
        FROM unnest(floor_queues, floor_priorities, floors) AS f (queue, priority, floor) WHERE f.floor <= top);
    SELECT c.control, (SELECT run_at FROM dayjob.job WHERE state = 'scheduled' AND run_at >= due_floor ORDER BY run_at LIMIT 1)
        INTO control, next_due FROM dayjob.cluster AS c;
    claimed := 0;
    levels := '[]';
    heard := CASE WHEN dayjob.nobody(13) THEN 0 ELSE 1 END + CASE WHEN dayjob.nobody(14) THEN 0 ELSE 2 END;
    PERFORM 1 FROM dayjob.lease AS l WHERE l.worker = by_worker AND l.claim_no = number;
    IF FOUND THEN
        claimed := -1;  -- the reply to this claim was lost: the same batch again
    ELSE
        PERFORM 1 FROM dayjob.worker AS w WHERE w.id = by_worker AND w.lost_at IS NULL;
        IF FOUND THEN
            FOR want IN SELECT * FROM jsonb_to_recordset(wants)
                AS w (queues text[], exclude text[], "limit" integer, suspects boolean, id uuid)
            LOOP
                IF want.id IS NOT NULL THEN
                    WITH gone AS (
                        DELETE FROM dayjob.ready AS r USING dayjob.job AS j
                        WHERE j.id = want.id AND r.queue = j.queue AND r.priority = j.priority AND r.kind IN (0, 1, 2)
                            AND r.place = j.place RETURNING r.id, r.entry
                    )
                    SELECT array_agg(g.id), array_agg(g.entry) INTO picked_ids, picked_entries FROM gone AS g;
                ELSE
                    WITH level AS MATERIALIZED (
                        SELECT l.queue, l.priority, l.kind, CASE WHEN l.kind = 0 THEN greatest(
                            CASE WHEN l.floor <= top THEN l.floor ELSE 0 END,
                            (known_floors -> (l.priority || ' ' || l.queue))::bigint) ELSE 0 END AS floor
                        FROM dayjob.level AS l
                        WHERE (want.queues IS NULL OR l.queue = ANY (want.queues)) AND l.queue <> ALL (want.exclude)
                            AND CASE WHEN want.suspects THEN l.kind = 2 ELSE l.kind < 2 END
                            AND NOT EXISTS (SELECT 1 FROM dayjob.paused AS p WHERE p.queue = l.queue)
                    ), few AS MATERIALIZED (  -- of many levels a few rows each
                        SELECT l.queue, l.priority, l.kind, r.*
                        FROM level AS l CROSS JOIN LATERAL (
                            SELECT r.ctid AS address, r.place, r.id, r.entry FROM dayjob.ready AS r
                            WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind AND r.place >= l.floor
                            ORDER BY r.place LIMIT (SELECT CASE WHEN count(*) <= 2 THEN want."limit"
                                ELSE least(want."limit", 10 + 2 * want."limit" / count(*)) END FROM level)) AS r
                    ), rest AS (  -- and the rest of those that had no more to offer than they were asked for
                        SELECT s.queue, s.priority, s.kind, r.*
                        FROM (
                            SELECT queue, priority, kind, max(place) AS place, count(*) AS found FROM few GROUP BY 1, 2, 3
                            HAVING count(*) = 10 + 2 * want."limit" / (SELECT count(*) FROM level)) AS s
                        CROSS JOIN LATERAL (
                            SELECT r.ctid AS address, r.place, r.id, r.entry FROM dayjob.ready AS r
                            WHERE r.queue = s.queue AND r.priority = s.priority AND r.kind = s.kind AND r.place > s.place
                            ORDER BY r.place LIMIT want."limit" - s.found) AS r
                        WHERE (SELECT count(*) FROM level) > 2 AND (s.priority, -s.place) > (
                            SELECT coalesce(min(b.priority), -2147483648), coalesce(min(-b.place), 0) FROM (
                                SELECT priority, place FROM few ORDER BY priority DESC, place OFFSET want."limit" - 1 LIMIT 1) AS b)
                    ), picked AS MATERIALIZED (
                        SELECT * FROM (SELECT * FROM few UNION ALL SELECT * FROM rest) AS p
                        ORDER BY p.priority DESC, p.place LIMIT want."limit"
                    ), gone AS (
                        DELETE FROM dayjob.ready WHERE ctid = ANY (ARRAY(SELECT address FROM picked))
                    ), up_to AS (
                        SELECT p.queue, p.priority, max(p.place) AS place FROM picked AS p WHERE p.kind = 0 GROUP BY 1, 2
                    )
                    SELECT (SELECT array_agg(p.id) FROM picked AS p), (SELECT array_agg(p.entry) FROM picked AS p),
                        CASE WHEN (SELECT count(*) FROM picked) < want."limit"  -- nothing is left below the top
                            THEN (SELECT jsonb_agg(jsonb_build_array(l.queue, l.priority, top)) FROM level AS l WHERE l.kind = 0)
                            ELSE (SELECT jsonb_agg(jsonb_build_array(u.queue, u.priority, u.place)) FROM up_to AS u) END
                        INTO picked_ids, picked_entries, reached;
                    levels := levels || coalesce(reached, '[]');
                END IF;
                IF picked_ids IS NOT NULL THEN
                    all_ids := all_ids || picked_ids;
                    all_entries := all_entries || picked_entries;
                END IF;
            END LOOP;
            claimed := cardinality(all_ids);
            IF claimed > 0 THEN
                INSERT INTO dayjob.lease (worker, claim_no, claimed_at, open, ids, entries)
                VALUES (by_worker, number, moment, claimed, all_ids, all_entries);
            END IF;
        END IF;
    END IF;
    suspects := false;
    IF EXISTS (SELECT 1 FROM dayjob.level WHERE kind = 2) THEN
        SELECT EXISTS (
            SELECT 1 FROM dayjob.level AS l, jsonb_to_recordset(wants) AS w (queues text[], exclude text[])
            WHERE l.kind = 2 AND (w.queues IS NULL OR l.queue = ANY (w.queues)) AND l.queue <> ALL (w.exclude)
                AND NOT EXISTS (SELECT 1 FROM dayjob.paused AS p WHERE p.queue = l.queue)
                AND EXISTS (SELECT 1 FROM dayjob.ready AS r
                    WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = 2)) INTO suspects;
    END IF;
END $$;

-- One job of a producer of dayjob's own: the commonest call of all, in a third of the time of the statement for many. It
-- commits by itself, and then wakes who sleeps: a notification in the same commit would have all others queue behind it for
-- as long as the disk takes. *repeat*: its id may be that of a job that finished. *fresh*: it was not there.
CREATE PROCEDURE dayjob.put(
    at bigint, job_id uuid, into_queue text, of_task text, payload bytea, urgency integer, delay double precision, due bigint,
    expires double precision, max_attempts integer, tags text, meta text, options bytea, repeat boolean,
    INOUT fresh boolean DEFAULT NULL
) LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    moment bigint := coalesce(at, dayjob.clock());
    number bigint;
    waits boolean;
BEGIN
    PERFORM set_config('lock_timeout', '1s', true);  -- somebody else's transaction may be storing the same id
    LOCK TABLE dayjob.ready IN ROW EXCLUSIVE MODE;  -- before the place is taken: see `ready`
    number := nextval('dayjob.entry');
    due := coalesce(due, moment + (delay * 1000000)::bigint, moment);
    waits := due > moment;
    INSERT INTO dayjob.job (id, entry, place, created_at, run_at, expires_at, priority, max_attempts, state, queue, task,
        payload, tags, meta, options)
    VALUES (job_id, number, number, moment, due, moment + (expires * 1000000)::bigint, urgency, max_attempts,
        CASE WHEN waits THEN 'scheduled' ELSE 'available' END, into_queue, of_task, payload, tags, meta, options)
    ON CONFLICT DO NOTHING;
    fresh := FOUND;
    IF fresh AND repeat AND coalesce((SELECT true FROM dayjob.history AS h WHERE h.id = job_id LIMIT 1),
        (SELECT true FROM dayjob.gone AS g WHERE g.id = job_id LIMIT 1)) THEN
        ROLLBACK;
        fresh := false;
    END IF;
    IF fresh AND NOT waits THEN
        INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) VALUES (number, number, job_id, urgency, 0, into_queue);
        PERFORM 1 FROM dayjob.level AS l
        WHERE l.queue = into_queue AND l.priority = urgency AND l.kind = 0 AND l.used_at > moment - 3600000000;
        IF NOT FOUND THEN
            INSERT INTO dayjob.level (queue, priority, kind, used_at) VALUES (into_queue, urgency, 0, moment)
            ON CONFLICT ON CONSTRAINT level_pkey DO UPDATE SET used_at = excluded.used_at;
        END IF;
    END IF;
    IF fresh AND NOT waits AND NOT dayjob.nobody(10) THEN
        COMMIT;
        PERFORM set_config('synchronous_commit', 'off', true), pg_notify('dayjob', 'w=' || into_queue);
    END IF;
END $$;

-- dayjob's producers in a transaction of their caller. *rows* are `NewRow`s: bytes as base 64, times as stamps.
-- What exists already answers `existing`, for a *repeat* also what has finished: to look takes a lock for each day of the
-- history, to the end of the caller's transaction. Workers are told at the commit. Whoever may enqueue may call this, so what
-- would be in the way of others is refused; how large arguments may be, each producer knows for himself. *at* is for tests.
CREATE FUNCTION dayjob.enqueue_rows(
    rows jsonb, at bigint DEFAULT NULL, home text DEFAULT NULL, repeat boolean DEFAULT true
) RETURNS TABLE (number integer, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    name CONSTANT text COLLATE "C" := '^[A-Za-z0-9_][A-Za-z0-9_.:-]*$';  -- with {0,199} a match takes 30 microseconds
    names CONSTANT text := 'use up to 200 of A-Z a-z 0-9 _ . : - and begin with a letter, a digit or _';
    moment bigint := coalesce(at, dayjob.clock());
    wrong text[];
    stored uuid[];
    known uuid[];
BEGIN
    PERFORM dayjob.require_home(home);
    IF at IS NOT NULL AND NOT has_table_privilege(session_user, 'dayjob.job', 'INSERT') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the time is the store''s to say';
    END IF;
    WITH s AS (
        SELECT s.*, nextval('dayjob.entry') AS n,
            coalesce(s.run_at, moment + (s.delay * 1000000)::bigint, moment) AS due
        FROM jsonb_to_recordset(rows) AS s (id uuid, queue text, task text, payload text, priority integer,
            delay double precision, run_at bigint, expires double precision, max_attempts integer, tags text, meta text,
            options text)
    ), flaw AS MATERIALIZED (
        SELECT min(CASE
            WHEN (s.task ~ name AND length(s.task) <= 200) IS NOT TRUE
                THEN ARRAY[format('task %s is no name', coalesce(quote_literal(left(s.task, 40)), 'NULL')), names]
            WHEN (s.queue ~ name AND length(s.queue) <= 200) IS NOT TRUE
                THEN ARRAY[format('queue %s is no name', coalesce(quote_literal(left(s.queue, 40)), 'NULL')), names]
            WHEN s.priority NOT BETWEEN -100 AND 100
                THEN ARRAY[format('priority %s', s.priority), 'use -100 to 100, higher first']
            WHEN s.max_attempts NOT BETWEEN 1 AND 1000000
                THEN ARRAY[format('max_attempts %s', s.max_attempts), 'use 1 (no retry) to 1000000, or leave it to the task']
            WHEN s.delay NOT BETWEEN 0 AND 3162240000 OR s.expires NOT BETWEEN 0.001 AND 3162240000
                THEN ARRAY[format('delay %s, expires %s', s.delay, s.expires), 'use up to 100 years, in seconds']
            WHEN s.run_at NOT BETWEEN -62135596800000000 AND 253402300799999999
                THEN ARRAY[format('run_at %s', s.run_at), 'use a time of the years 1 to 9999, in microseconds since 1970']
            WHEN s.tags IS NOT NULL THEN (
                SELECT min(CASE WHEN (jsonb_typeof(e.tag) = 'string' AND e.tag #>> '{}' ~ name AND length(e.tag #>> '{}') <= 200) IS NOT TRUE
                    THEN ARRAY[format('tag %s is no name', coalesce(quote_literal(left(e.tag #>> '{}', 40)), 'NULL')), names]
                    WHEN e.n > 100 THEN ARRAY[format('%s tags', jsonb_array_length(s.tags::jsonb)), 'a job can have 100'] END)
                FROM jsonb_array_elements(s.tags::jsonb) WITH ORDINALITY AS e (tag, n)) END) AS problem
        FROM s
    ), new AS (
        INSERT INTO dayjob.job AS j (id, entry, place, created_at, run_at, expires_at, priority, max_attempts, state, queue,
            task, payload, tags, meta, options)
        SELECT s.id, s.n, s.n, moment, s.due, moment + (s.expires * 1000000)::bigint, coalesce(s.priority, 0), s.max_attempts,
            CASE WHEN s.due > moment THEN 'scheduled' ELSE 'available' END, s.queue, s.task, decode(s.payload, 'base64'),
            s.tags, s.meta, decode(s.options, 'base64')
        FROM s WHERE (SELECT flaw.problem IS NULL FROM flaw) ON CONFLICT (id) DO NOTHING RETURNING j.id, j.entry
    ), came AS (
        INSERT INTO dayjob.arrival (entry, id) SELECT new.entry, new.id FROM new
    )
    SELECT (SELECT flaw.problem FROM flaw), (SELECT array_agg(new.id) FROM new) INTO wrong, stored;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'dayjob' || '.enqueue: ' || wrong[1], HINT = wrong[2];
    END IF;
    IF repeat THEN
        SELECT array_agg(s.id) INTO known FROM unnest(stored) AS s (id)
        WHERE coalesce((SELECT true FROM dayjob.history AS h WHERE h.id = s.id LIMIT 1),
            (SELECT true FROM dayjob.gone AS g WHERE g.id = s.id LIMIT 1));
    END IF;
    IF known IS NOT NULL THEN
        DELETE FROM dayjob.arrival AS a USING dayjob.job AS j
        WHERE j.id = ANY (known) AND a.xid = pg_current_xact_id() AND a.entry = j.entry;
        DELETE FROM dayjob.job AS j WHERE j.id = ANY (known);
    END IF;
    PERFORM pg_notify('dayjob', 'w=');
    RETURN QUERY SELECT r.n::integer, CASE WHEN r.id = ANY (stored) AND NOT r.id = ANY (coalesce(known, '{}'))
        AND r.n = min(r.n) OVER (PARTITION BY r.id) THEN 'inserted' ELSE 'existing' END
    FROM (SELECT (e.value ->> 'id')::uuid AS id, e.n FROM jsonb_array_elements(rows) WITH ORDINALITY AS e (value, n)) AS r
    ORDER BY r.n;
END $$;

-- The id of a new job, as Python's producers make them: a UUID of version 7, which begins with the time.
CREATE FUNCTION dayjob.new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT (lpad(to_hex(t.us / 1000), 12, '0') || to_hex(28672 + t.us % 1000 * 4096 / 1000)
        || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid FROM (SELECT dayjob.clock() AS us) AS t
$$;

-- One job by SQL (triggers, other languages), stored when the caller's transaction commits; answers its id. *args* are the
-- task's arguments by name, in the JSON forms in which Python writes them: "9.99" for a Decimal, ISO 8601 for a datetime.
-- An *id* that exists already is not stored again (unless it finished after the caller's snapshot, see the guide). What Python's producers would refuse is refused here, too.
CREATE FUNCTION dayjob.enqueue(
    task text, args jsonb DEFAULT '{}', queue text DEFAULT 'default', priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL, max_attempts integer DEFAULT NULL,
    expires interval DEFAULT NULL, tags text[] DEFAULT NULL, meta jsonb DEFAULT NULL, id uuid DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    no_parameter CONSTANT text COLLATE "C" := '^([0-9]|$)|[\x01-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]';
    most CONSTANT integer := coalesce(nullif(current_setting('dayjob' || '.max_payload', true), ''), '10000');  -- no quotes as in 'dayjob.x'
    payload CONSTANT bytea := convert_to(args::text, 'UTF8');
    labels CONSTANT text[] := array(SELECT u.tag FROM unnest(tags) WITH ORDINALITY AS u (tag, n) GROUP BY u.tag ORDER BY min(u.n));
    chosen CONSTANT boolean := id IS NOT NULL;
    problem text;
    remedy text;
BEGIN  -- what `enqueue_rows` will not say
    IF priority IS NULL THEN
        problem := 'priority NULL';
        remedy := 'use -100 to 100, higher first';
    ELSIF (jsonb_typeof(args) = 'object') IS NOT TRUE THEN
        problem := format('args is %s', coalesce('a JSON ' || jsonb_typeof(args), 'NULL'));
        remedy := 'give an object with the arguments by name: jsonb_build_object(''order_id'', 7), or ''{}'' for none';
    ELSIF length(payload) > most THEN
        problem := format('args has %s bytes, the limit is %s', length(payload), most);
        remedy := format('keep what is large in a table and pass its key; ALTER DATABASE .. SET %s.max_payload = .. raises the limit', 'dayjob');
    ELSIF EXISTS (SELECT 1 FROM jsonb_object_keys(args) AS k WHERE k ~ no_parameter) THEN
        problem := format('the argument %s', (SELECT quote_literal(left(k, 40)) FROM jsonb_object_keys(args) AS k WHERE k ~ no_parameter LIMIT 1));
        remedy := 'no parameter of a task can have this name';
    ELSIF run_at IS NOT NULL AND delay IS NOT NULL THEN
        problem := 'run_at and delay both say when';
        remedy := 'give one of them';
    ELSIF run_at NOT BETWEEN '0001-01-01Z' AND clock_timestamp() + interval '100 years' THEN
        problem := format('run_at %s', run_at);
        remedy := 'use a time less than 100 years away, or leave it out for at once';
    ELSIF delay NOT BETWEEN '0' AND '100 years' THEN
        problem := format('delay %s', delay);
        remedy := 'use 0 to 100 years';
    ELSIF expires NOT BETWEEN '1 millisecond' AND '100 years' THEN
        problem := format('expires %s', expires);
        remedy := 'use 1 millisecond to 100 years';
    ELSIF jsonb_typeof(meta) <> 'object' OR octet_length(meta::text) > 10000 THEN
        problem := format('meta is a JSON %s of %s bytes', jsonb_typeof(meta), octet_length(meta::text));
        remedy := 'give an object of at most 10000 bytes';
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'dayjob' || '.enqueue: ' || problem, HINT = remedy;
    END IF;
    id := coalesce(id, dayjob.new_id());
    PERFORM dayjob.enqueue_rows(jsonb_build_array(jsonb_build_object(
        'id', id, 'queue', queue, 'task', task, 'payload', encode(payload, 'base64'), 'priority', priority,
        'run_at', (extract(epoch FROM coalesce(run_at, clock_timestamp() + delay)) * 1000000)::bigint,
        'expires', extract(epoch FROM expires), 'max_attempts', max_attempts,
        'tags', array_to_json(nullif(labels, '{}'))::text, 'meta', nullif(meta, '{}')::text)), repeat => chosen);
    RETURN id;
END $$;

-- A running job is completed in its worker's own transaction; false when the lease is gone. The rest of that transaction
-- holds the job: nobody takes it away before its end. *lines* are those of its log: [{"at":, "level":, "message":}, ..].
CREATE FUNCTION dayjob.complete_job(
    by_worker text, job_id uuid, job_entry bigint, started_at bigint, finished_at bigint, keep double precision, result bytea,
    lines jsonb DEFAULT NULL, at bigint DEFAULT NULL, home text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    moment bigint := coalesce(at, dayjob.clock());
    until bigint := moment + (CASE WHEN keep < 31536000000 THEN keep END * 1000000)::bigint;
    day date := CASE WHEN keep < 5400000 THEN DATE '1970-01-01' + (until / 86400000000)::integer ELSE 'infinity' END;
    claim bigint;
    done dayjob.job;
BEGIN
    PERFORM dayjob.require_home(home);
    SELECT l.claim_no INTO claim FROM dayjob.lease AS l
    WHERE l.worker = by_worker AND l.open > 0 AND l.entries @> ARRAY[job_entry];
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM dayjob.job AS j WHERE j.id = job_id AND j.entry = job_entry RETURNING * INTO done;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF to_regclass('dayjob.history_' || to_char(day, 'YYYYMMDD')) IS NULL THEN
        day := 'infinity';
    END IF;
    INSERT INTO dayjob.history (id, entry, created_at, run_at, expires_at, started_at, finished_at, keep_until, goes, priority,
        max_attempts, attempt, crashes, round, recorded, state, queue, task, payload, result, tags, meta, options, worker, progress)
    VALUES (done.id, done.entry, done.created_at, done.run_at, done.expires_at, nullif(started_at, 0),
        coalesce(nullif(finished_at, 0), moment), until, day, done.priority, done.max_attempts, done.attempt + 1, done.crashes,
        done.round, done.recorded, 'completed', done.queue, done.task, done.payload, result, done.tags, done.meta, done.options,
        (SELECT w.name FROM dayjob.worker AS w WHERE w.id = by_worker), done.progress);
    INSERT INTO dayjob.total (goes, queue, state, jobs) VALUES (day, done.queue, 'completed', 1);
    INSERT INTO dayjob.log (id, at, level, message)
    SELECT done.id, l.at, l.level, l.message FROM jsonb_to_recordset(lines) AS l (at bigint, level text, message text);
    RETURN true;
END $$;
