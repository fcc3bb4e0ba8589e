-- One statement per operation. Batches come in as one array per column. `$1` is the stamp of now or null for the server's
-- clock wherever a statement needs the time.

-- == enqueue =====================================================================================================

-- name: insert
-- $2.. columns: id, queue, task, payload, priority, delay, run_at, expires, max_attempts, tags, meta, options
-- $14 how long to wait for somebody else's transaction that stores one of the ids
-- Answers the ids that were new, null when all were; whether nobody sleeps who would have to be woken; and whether nothing
-- was stored as one of the queues has a limit: such rows go by `accept`.
WITH t AS MATERIALIZED (SELECT coalesce($1::bigint, dayjob.clock()) AS now, set_config('lock_timeout', $14::text, true)),
s AS (
    SELECT s.*, t.now, nextval('dayjob.entry') AS n,
        coalesce(s.run_at, t.now + (s.delay * 1000000)::bigint, t.now) AS due
    FROM t, unnest($2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::integer[], $7::double precision[], $8::bigint[],
        $9::double precision[], $10::integer[], $11::text[], $12::text[], $13::bytea[])
        AS s (id, queue, task, payload, priority, delay, run_at, expires, max_attempts, tags, meta, options)
    WHERE NOT $3::text[] && ARRAY(SELECT l.queue::text FROM dayjob.queue_limit AS l WHERE l.max_depth IS NOT NULL OR l.closed IS NOT NULL)
), new AS (
    INSERT INTO dayjob.job (id, entry, place, created_at, run_at, expires_at, priority, max_attempts, state, queue, task,
        payload, tags, meta, options)
    SELECT id, n, n, now, due, now + (expires * 1000000)::bigint, priority, max_attempts,
        CASE WHEN due > now THEN 'scheduled' ELSE 'available' END, queue, task, payload, tags, meta, options
    FROM s ON CONFLICT (id) DO NOTHING
    RETURNING id, entry, place, state, queue, priority
), known AS (
    INSERT INTO dayjob.level AS l (queue, priority, kind, used_at)
    SELECT n.queue, n.priority, 0, t.now FROM (SELECT DISTINCT queue, priority FROM new WHERE state = 'available') AS n, t
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = 0
        AND k.used_at > t.now - 3600000000)
    ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
), stored AS (
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
    SELECT place, entry, id, priority, 0, queue FROM new WHERE state = 'available'
)
SELECT CASE WHEN count(*) < cardinality($2::uuid[]) THEN coalesce(array_agg(id::text), '{}') END,
    dayjob.nobody(10),
    $3::text[] && ARRAY(SELECT l.queue::text FROM dayjob.queue_limit AS l WHERE l.max_depth IS NOT NULL OR l.closed IS NOT NULL)
FROM new

-- name: put
CALL dayjob.put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: take_back
-- $1 ids just inserted: those that were known before, finished or gone, are taken back. No EXISTS: where the history was
-- empty when the plan was made, it reads all of it.
WITH known AS (
    SELECT s.id FROM unnest($1::uuid[]) AS s (id)
    WHERE coalesce((SELECT true FROM dayjob.history AS h WHERE h.id = s.id LIMIT 1),
        (SELECT true FROM dayjob.gone AS g WHERE g.id = s.id LIMIT 1))
), job AS (
    DELETE FROM dayjob.job AS j USING known AS k WHERE j.id = k.id RETURNING j.id, j.queue, j.priority, j.place, j.entry
), ready AS (
    DELETE FROM dayjob.ready AS r USING job AS j
    WHERE r.queue = j.queue AND r.priority = j.priority AND r.kind = 0 AND r.place = j.place AND r.entry = j.entry
)
SELECT id::text FROM job

-- == in a caller's transaction ===================================================================================

-- name: accept
-- $1 JSON array of rows  $2 now  $3 where the jobs are  $4 ids may be those of finished jobs  $5 the transaction is our own
SELECT number, outcome, CAST(job AS text), detail FROM dayjob.accept_rows(CAST(CAST($1 AS text) AS jsonb), CAST($2 AS bigint),
    CAST($3 AS text), CAST($4 AS boolean), CAST($5 AS boolean)) ORDER BY number

-- name: complete_joined
-- $1 worker  $2 id  $3 entry  $4 started  $5 finished  $6 seconds to keep  $7 result  $8 JSON array of log lines  $9 now
-- $10 where the jobs are
SELECT dayjob.complete_job(CAST($1 AS text), CAST(CAST($2 AS text) AS uuid), CAST($3 AS bigint), CAST($4 AS bigint),
    CAST($5 AS bigint), CAST($6 AS double precision), CAST($7 AS bytea), CAST(CAST($8 AS text) AS jsonb), CAST($9 AS bigint),
    CAST($10 AS text))

-- name: is_free
-- $1 id  $2 entry: a row when the job is there and no transaction holds it
SELECT 1 FROM dayjob.job WHERE id = $1::uuid AND entry = $2 FOR UPDATE SKIP LOCKED

-- name: is_there
SELECT 1 FROM dayjob.job WHERE id = $1::uuid AND entry = $2

-- name: has_completed
-- $1 id  $2 entry: also when it has gone from the history since
SELECT 1 WHERE EXISTS (SELECT 1 FROM dayjob.history WHERE id = $1::uuid AND entry = $2 AND state = 'completed')
    OR (EXISTS (SELECT 1 FROM dayjob.gone WHERE id = $1::uuid) AND NOT EXISTS (SELECT 1 FROM dayjob.job WHERE id = $1::uuid))

-- == settle ======================================================================================================

-- name: finish
-- $2.. columns: id, entry, claim, started, finished, keep, body (result or error). Then $9 worker, $10 the claims,
-- $11 state, $12 reason, $13 attempts and $14 crashes added. Answers the entries that were held, null when all were.
-- The membership test is a hashed sub-plan, not a join: `IS TRUE` keeps it one. What is counted and compared comes first
-- in the rows handed on: to read a column of such a row is to walk over all before it. What is kept for no time is forgotten
-- here: its end and the memory of its id are one commit (P9). What jobs hold of gates is let go for all of them together:
-- the trigger that does it for each is told so before the first row is deleted, and told the contrary after the last.
WITH done AS (
    DELETE FROM dayjob.job AS j
    USING (SELECT coalesce($1::bigint, dayjob.clock()) AS now, set_config('dayjob' || '.let_go', 'together', true) OFFSET 0) AS t,
        unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::double precision[], $8::bytea[])
        AS s (id, entry, claim_no, started_at, finished_at, keep, body)
    WHERE j.id = s.id AND j.entry = s.entry AND (s.entry IN (
        SELECT unnest(l.entries) FROM dayjob.lease AS l WHERE l.worker = $9 AND l.claim_no = ANY ($10::bigint[]))) IS TRUE
    RETURNING s.claim_no, j.entry, s.keep, j.queue,
        CASE WHEN s.keep < 5400000 THEN DATE '1970-01-01' + ((t.now + (s.keep * 1000000)::bigint) / 86400000000)::integer
            ELSE 'infinity' END AS goes,
        j.id, j.created_at, j.run_at, j.expires_at, nullif(s.started_at, 0) AS started_at,
        coalesce(nullif(s.finished_at, 0), t.now) AS finished_at, t.now + (CASE WHEN s.keep < 31536000000 THEN s.keep END * 1000000)::bigint AS keep_until,
        j.priority, j.max_attempts, j.attempt + $13::integer AS attempt, j.crashes + $14::integer AS crashes, j.round,
        j.recorded, j.task, j.payload, s.body, j.tags, j.meta, j.options, j.progress, j.gating
), closed AS (
    UPDATE dayjob.lease AS l SET open = l.open - d.n
    FROM (SELECT claim_no, count(*)::integer AS n FROM done GROUP BY claim_no) AS d
    WHERE l.worker = $9 AND l.claim_no = d.claim_no
), counted AS (
    INSERT INTO dayjob.total (goes, queue, state, jobs)
    SELECT goes, queue, $11, count(*) FROM done WHERE keep IS DISTINCT FROM 0 GROUP BY goes, queue
), kept AS (
    INSERT INTO dayjob.history (id, entry, created_at, run_at, expires_at, started_at, finished_at, keep_until, goes,
        priority, max_attempts, attempt, crashes, round, recorded, state, queue, task, payload, result, error, tags, meta,
        options, reason, worker, progress, gating)
    SELECT id, entry, created_at, run_at, expires_at, started_at, finished_at, keep_until, goes, priority, max_attempts,
        attempt, crashes, round, recorded, $11::text, queue, task, payload,
        CASE WHEN $11 = 'completed' THEN body END, CASE WHEN $11 <> 'completed' THEN body END,
        tags, meta, options, $12::text, (SELECT w.name FROM dayjob.worker AS w WHERE w.id = $9), progress, gating
    FROM done WHERE keep IS DISTINCT FROM 0
)
SELECT CASE WHEN count(*) < cardinality($2::uuid[]) THEN coalesce(array_agg(entry), '{}') END,
    dayjob.forget(array_agg(id) FILTER (WHERE keep = 0), coalesce($1::bigint, dayjob.clock()) + 3600000000),
    set_config('dayjob' || '.let_go', '', true),
    dayjob.let_go(array_agg(id) FILTER (WHERE gating IS NOT NULL), array_agg(gating) FILTER (WHERE gating IS NOT NULL), true)
FROM done

-- name: add_days
-- $2 seconds for which jobs are kept: the partitions that they need.
SELECT dayjob.add_day(day) FROM (
    SELECT DISTINCT DATE '1970-01-01' + ((coalesce($1::bigint, dayjob.clock()) + (keep * 1000000)::bigint) / 86400000000)::integer AS day
    FROM unnest($2::double precision[]) AS k (keep) WHERE keep < 5400000) AS d

-- name: claims_of
-- $1 worker  $2 entries: the claim of each that it holds
SELECT e.entry, l.claim_no FROM dayjob.lease AS l CROSS JOIN LATERAL unnest(l.entries) AS e (entry)
WHERE l.worker = $1 AND e.entry = ANY ($2::bigint[])

-- name: held
-- $1 ids  $2 entries  $3 worker  $4 its claims: those that still run under it, locked, in the order of their ids
SELECT j.entry, j.id::text, j.task, j.queue, j.attempt, j.crashes, j.round, j.parked, j.suspect, j.cancelling, j.reason
FROM unnest($1::uuid[], $2::bigint[]) AS s (id, entry) JOIN dayjob.job AS j ON j.id = s.id
WHERE j.entry = s.entry AND (s.entry IN (
    SELECT unnest(l.entries) FROM dayjob.lease AS l WHERE l.worker = $3 AND l.claim_no = ANY ($4::bigint[]))) IS TRUE
ORDER BY j.id FOR UPDATE OF j

-- name: put_back
-- $1.. columns: id, entry, state, attempt, crashes, suspect, parked, run_at, reason, begun. What has begun cannot expire.
WITH back AS (
    UPDATE dayjob.job AS j SET entry = nextval('dayjob.entry'),
        state = CASE WHEN s.state = 'available' THEN dayjob.next_state(j.gating) ELSE s.state END, attempt = s.attempt, crashes = s.crashes,
        suspect = s.suspect, parked = s.parked, run_at = coalesce(s.run_at, j.run_at), reason = s.reason,
        expires_at = CASE WHEN s.begun THEN NULL ELSE j.expires_at END, cancelling = false,
        recorded = true
    FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::integer[], $5::integer[], $6::boolean[], $7::integer[],
        $8::bigint[], $9::text[], $10::boolean[])
        AS s (id, entry, state, attempt, crashes, suspect, parked, run_at, reason, begun)
    WHERE j.id = s.id AND j.entry = s.entry
    RETURNING j.id, j.entry, j.place, j.queue, j.priority, j.state, CASE WHEN j.suspect THEN 2 ELSE 1 END AS kind
), known AS (
    INSERT INTO dayjob.level (queue, priority, kind, used_at)
    SELECT n.queue, n.priority, n.kind, dayjob.clock()
    FROM (SELECT DISTINCT queue, priority, kind FROM back WHERE state = 'available') AS n
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
        AND k.used_at > dayjob.clock() - 3600000000)
    ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
)
INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
SELECT place, entry, id, priority, kind, queue FROM back WHERE state = 'available'

-- name: close_leases
-- $1 worker  $2 claims, one for each job that left
UPDATE dayjob.lease AS l SET open = l.open - c.n
FROM (SELECT no, count(*)::integer AS n FROM unnest($2::bigint[]) AS u (no) GROUP BY no) AS c
WHERE l.worker = $1 AND l.claim_no = c.no

-- name: settling
-- The store's clock. From here on we count as writers of `ready` (floors.py): what is scheduled after this moment is below
-- nobody's floor.
SELECT dayjob.clock() FROM (SELECT count(*) FROM (SELECT FROM dayjob.ready WHERE false FOR UPDATE) AS none) AS one

-- name: add_attempts
-- $1.. columns: id, number, round, outcome, started, finished, reason, error; $9 worker
INSERT INTO dayjob.attempt (id, number, round, outcome, started_at, finished_at, worker, reason, error)
SELECT id, number, round, outcome, nullif(started_at, 0), finished_at, (SELECT w.name FROM dayjob.worker AS w WHERE w.id = $9),
    reason, error
FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::bytea[])
    AS s (id, number, round, outcome, started_at, finished_at, reason, error)

-- name: trim_attempts
-- $1 ids: of each job the first 10 and the newest 90 attempts stay
WITH over AS (
    SELECT a.no FROM (
        SELECT DISTINCT u.id FROM unnest($1::uuid[]) AS u (id)
        WHERE (SELECT count(*) FROM dayjob.attempt AS o WHERE o.id = u.id) > 100) AS s CROSS JOIN LATERAL (
        SELECT a.no, row_number() OVER (ORDER BY a.no) AS first, row_number() OVER (ORDER BY a.no DESC) AS last
        FROM dayjob.attempt AS a WHERE a.id = s.id) AS a
    WHERE a.first > 10 AND a.last > 90
)
DELETE FROM dayjob.attempt AS a USING over AS o WHERE a.no = o.no

-- == claim =======================================================================================================

-- name: claim
SELECT moment, control, next_due, suspects, claimed, top, snapshot::text, levels, heard, more, writers, incarnation
FROM dayjob.claim($1, $2, $3, $4::jsonb, $5::text[], $6::integer[], $7::bigint[], $8, $9::pg_snapshot, $10, $11)

-- name: take_turn
SELECT dayjob.take_turn()

-- name: admit_arrivals
-- $1 now  $2 a snapshot at which all were admitted, or null
SELECT dayjob.admit_arrivals($2::pg_snapshot, coalesce($1::bigint, dayjob.clock()))

-- name: fetch
SELECT j.entry, j.id::text, j.task, j.queue, j.priority, j.attempt, j.crashes, j.round, j.parked, j.max_attempts,
    j.created_at, j.run_at, j.expires_at, j.tags, j.meta, j.options,
    j.recorded AND EXISTS (SELECT 1 FROM dayjob.checkpoint AS c WHERE c.id = j.id), j.suspect, j.payload
FROM dayjob.lease AS l CROSS JOIN LATERAL unnest(l.ids, l.entries) WITH ORDINALITY AS u (id, entry, n)
JOIN dayjob.job AS j ON j.id = u.id AND j.entry = u.entry
WHERE l.worker = $1 AND l.claim_no = $2 ORDER BY u.n

-- == record ======================================================================================================

-- name: runs_under
-- $1 worker  $2 id  $3 entry. Locked, so that nobody takes the job away before the write is done.
SELECT j.recorded FROM dayjob.job AS j WHERE j.id = $2::uuid AND j.entry = $3
    AND EXISTS (SELECT 1 FROM dayjob.lease AS l WHERE l.worker = $1 AND l.open > 0 AND l.entries @> ARRAY[$3::bigint])
FOR UPDATE

-- name: note
-- $1 id  $2 progress or null: something was recorded
UPDATE dayjob.job SET progress = coalesce($2::text, progress), recorded = true WHERE id = $1::uuid

-- name: set_checkpoint
INSERT INTO dayjob.checkpoint (id, value) VALUES ($1::uuid, $2::bytea) ON CONFLICT (id) DO UPDATE SET value = excluded.value

-- name: add_logs
INSERT INTO dayjob.log (id, at, level, message)
SELECT $1::uuid, at, level, message FROM unnest($2::bigint[], $3::text[], $4::text[]) AS s (at, level, message)

-- name: trim_logs
DELETE FROM dayjob.log WHERE id = $1::uuid AND no <= (
    SELECT no FROM dayjob.log WHERE id = $1::uuid ORDER BY no DESC LIMIT 1 OFFSET 1000)

-- name: checkpoint
SELECT value FROM dayjob.checkpoint WHERE id = $1::uuid

-- == act =========================================================================================================

-- name: lock_live
-- $1 ids: (id, entry, running), locked in the order of their ids
SELECT j.id::text, j.entry, j.state, (j.state = 'available' AND (j.entry IN (
    SELECT unnest(l.entries) FROM dayjob.lease AS l WHERE l.open > 0)) IS TRUE) AS running
FROM dayjob.job AS j WHERE j.id = ANY ($1::uuid[]) ORDER BY j.id FOR UPDATE

-- name: lock_finished
-- $1 ids: (id, entry), locked in this order
SELECT h.id::text, h.entry FROM dayjob.history AS h WHERE h.id = ANY ($1::uuid[]) ORDER BY h.id, h.entry FOR UPDATE

-- name: drop_ready
-- $1 ids: no longer claimable
WITH j AS (SELECT id, queue, priority, place, entry FROM dayjob.job WHERE id = ANY ($1::uuid[])),
came AS (
    DELETE FROM dayjob.arrival AS a USING (
        SELECT a.xid, a.entry FROM dayjob.arrival AS a WHERE a.id = ANY ($1::uuid[])) AS x WHERE a.xid = x.xid AND a.entry = x.entry
)
DELETE FROM dayjob.ready AS r USING j
WHERE r.queue = j.queue AND r.priority = j.priority AND r.kind IN (0, 1, 2, 3) AND r.place = j.place AND r.entry = j.entry

-- name: cancel_waiting
-- $1 now  $2 ids  $3 reason  $4 seconds to keep
WITH t AS MATERIALIZED (SELECT coalesce($1::bigint, dayjob.clock()) AS now),
done AS (DELETE FROM dayjob.job WHERE id = ANY ($2::uuid[]) RETURNING *),
kept AS (
    INSERT INTO dayjob.history (id, entry, created_at, run_at, expires_at, finished_at, keep_until, goes, priority,
        max_attempts, attempt, crashes, round, recorded, state, queue, task, payload, tags, meta, options, reason, progress, gating)
    SELECT id, entry, created_at, run_at, expires_at, now, now + (CASE WHEN $4::double precision < 31536000000 THEN $4 END * 1000000)::bigint,
        CASE WHEN $4 < 5400000 THEN DATE '1970-01-01' + ((now + ($4 * 1000000)::bigint) / 86400000000)::integer ELSE 'infinity' END,
        priority, max_attempts, attempt, crashes, round, recorded, 'cancelled', queue, task, payload, tags, meta, options,
        $3::text, progress, gating
    FROM done, t RETURNING goes, queue
)
INSERT INTO dayjob.total (goes, queue, state, jobs) SELECT goes, queue, 'cancelled', count(*) FROM kept GROUP BY goes, queue

-- name: ask_to_cancel
UPDATE dayjob.job SET cancelling = true, reason = $2::text WHERE id = ANY ($1::uuid[])

-- name: bump_control
UPDATE dayjob.cluster SET control = control + 1

-- name: erase_finished
-- $1 ids  $2 state or null: their rows of the history go for good
WITH over AS (DELETE FROM dayjob.history WHERE id = ANY ($1::uuid[]) RETURNING goes, queue, state),
counted AS (
    INSERT INTO dayjob.total (goes, queue, state, jobs) SELECT goes, queue, state, -count(*) FROM over GROUP BY goes, queue, state
)
SELECT count(*) FROM over

-- name: revive
-- $1 now  $2 ids of finished jobs: available again, in a new round. One whose id lives again only gives way. Answers those
-- that want a place by the turn of their lane.
WITH t AS MATERIALIZED (SELECT coalesce($1::bigint, dayjob.clock()) AS now),
h AS MATERIALIZED (
    SELECT DISTINCT ON (o.n) h.*, o.n FROM unnest($2::uuid[]) WITH ORDINALITY AS o (id, n)
    CROSS JOIN LATERAL (SELECT * FROM dayjob.history AS h WHERE h.id = o.id) AS h ORDER BY o.n, h.entry DESC
), numbered AS (
    SELECT h.*, nextval('dayjob.entry') AS no FROM h
), new AS (
    INSERT INTO dayjob.job (id, entry, place, created_at, run_at, priority, max_attempts, round, state, queue, task, payload,
        tags, meta, options, gating)
    SELECT id, no, no, created_at, now, priority, max_attempts, round + 1, dayjob.next_state(gating), queue, task, payload, tags,
        meta, options, gating
    FROM numbered, t ON CONFLICT (id) DO NOTHING
    RETURNING id, place, priority, queue, state = 'available' AND (gating ? 'lane') IS NOT TRUE AS plain,
        state = 'available' AND gating ? 'lane' AS laned
), known AS (
    INSERT INTO dayjob.level (queue, priority, kind, used_at)
    SELECT n.queue, n.priority, 0, now FROM (SELECT DISTINCT queue, priority FROM new WHERE plain) AS n, t
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = 0
        AND k.used_at > t.now - 3600000000)
    ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
), stored AS (
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) SELECT place, place, id, priority, 0, queue FROM new WHERE plain
)
SELECT id::text FROM new WHERE laned ORDER BY place

-- name: promote
-- $1 now  $2 ids of scheduled jobs, in order. Answers as `revive`.
WITH t AS MATERIALIZED (SELECT coalesce($1::bigint, dayjob.clock()) AS now),
s AS (SELECT o.id, nextval('dayjob.entry') AS no FROM unnest($2::uuid[]) AS o (id)),
new AS (
    UPDATE dayjob.job AS j SET entry = s.no, place = dayjob.place_of(j, j.gating, s.no), state = dayjob.next_state(j.gating), run_at = t.now
    FROM s, t WHERE j.id = s.id
    RETURNING j.id, j.place, j.priority, j.queue, CASE WHEN j.suspect THEN 2 ELSE 0 END AS kind,
        j.state = 'available' AND (j.gating ? 'lane') IS NOT TRUE AS plain, j.state = 'available' AND j.gating ? 'lane' AS laned
), known AS (
    INSERT INTO dayjob.level (queue, priority, kind, used_at)
    SELECT n.queue, n.priority, n.kind, now FROM (SELECT DISTINCT queue, priority, kind FROM new WHERE plain) AS n, t
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
        AND k.used_at > t.now - 3600000000)
    ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
), stored AS (
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue) SELECT place, place, id, priority, kind, queue FROM new WHERE plain
)
SELECT id::text FROM new WHERE laned ORDER BY place

-- name: edit
-- $1 now  $2 ids in order  $3 run_at or null  $4 priority  $5 queue  $6 payload  $7 gating. Their rows in `ready` are gone already.
-- Answers as `revive`.
WITH t AS MATERIALIZED (SELECT coalesce($1::bigint, dayjob.clock()) AS now),
s AS (
    SELECT o.id, nextval('dayjob.entry') AS no, CASE WHEN $7::jsonb IS NULL THEN j.gating ELSE dayjob.regated(j.gating, $7) END AS gating
    FROM unnest($2::uuid[]) WITH ORDINALITY AS o (id, n) JOIN dayjob.job AS j ON j.id = o.id ORDER BY o.n),
new AS (
    UPDATE dayjob.job AS j SET entry = s.no, gating = s.gating,
        place = dayjob.place_of(j, s.gating, CASE WHEN $3::bigint IS NULL AND $4::integer IS NULL AND $5::text IS NULL
            AND s.gating IS NOT DISTINCT FROM j.gating AND NOT (j.state = 'scheduled' AND j.place = j.entry) THEN j.place ELSE s.no END),
        run_at = CASE WHEN $3 IS NULL THEN j.run_at ELSE greatest($3, t.now) END,
        state = CASE WHEN $3 > t.now OR $3 IS NULL AND j.state = 'scheduled' THEN 'scheduled' ELSE dayjob.next_state(s.gating) END,
        priority = coalesce($4, j.priority), queue = coalesce($5, j.queue), payload = coalesce($6::bytea, j.payload)
    FROM s, t WHERE j.id = s.id
    RETURNING j.id, j.entry, j.place, j.priority, j.queue, j.state,
        CASE WHEN j.suspect THEN 2 WHEN j.place <> s.no THEN 1 ELSE 0 END AS kind,
        j.state = 'available' AND ((j.gating ? 'lane') IS NOT TRUE OR j.place <> s.no) AS plain,
        j.state = 'available' AND j.gating ? 'lane' AND j.place = s.no AS laned
), known AS (
    INSERT INTO dayjob.level (queue, priority, kind, used_at)
    SELECT n.queue, n.priority, n.kind, now FROM (SELECT DISTINCT queue, priority, kind FROM new WHERE plain) AS n, t
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
        AND k.used_at > t.now - 3600000000)
    ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
), stored AS (
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
    SELECT place, entry, id, priority, kind, queue FROM new WHERE plain
)
SELECT id::text FROM new WHERE laned ORDER BY place

-- name: others_gated
-- $1 ids  $2 gating: those that have another one
SELECT o.id::text FROM unnest($1::uuid[]) WITH ORDINALITY AS o (id, n) JOIN dayjob.job AS j ON j.id = o.id
WHERE dayjob.regated(j.gating, $2::jsonb) IS DISTINCT FROM j.gating ORDER BY o.n

-- name: delete_live
DELETE FROM dayjob.job WHERE id = ANY ($1::uuid[])

-- name: drop_traces
WITH a AS (DELETE FROM dayjob.attempt WHERE id = ANY ($1::uuid[])),
l AS (DELETE FROM dayjob.log WHERE id = ANY ($1::uuid[]))
DELETE FROM dayjob.checkpoint WHERE id = ANY ($1::uuid[])

-- name: drop_checkpoints
DELETE FROM dayjob.checkpoint WHERE id = ANY ($1::uuid[])

-- name: forget
SELECT dayjob.forget($2::uuid[], coalesce($1::bigint, dayjob.clock()) + 3600000000)

-- name: remember_gone
-- $1 now  $2 ids: still findable as a repeat for an hour
INSERT INTO dayjob.gone (id, until) SELECT u.id, coalesce($1::bigint, dayjob.clock()) + 3600000000 FROM unnest($2::uuid[]) AS u (id)

-- == cluster =====================================================================================================

-- name: cluster
SELECT live, beat_at, term, leader, control, coalesce($1::bigint, dayjob.clock()) FROM dayjob.cluster FOR UPDATE

-- name: set_cluster
UPDATE dayjob.cluster SET live = $1, beat_at = $2, term = $3, leader = $4

-- name: end_leader
UPDATE dayjob.cluster SET leader = NULL WHERE leader = $1

-- name: worker
SELECT id, name, solo, info, started_at, beat_at, expires, lost_at, resigned FROM dayjob.worker WHERE id = $1

-- name: set_worker
INSERT INTO dayjob.worker (id, name, solo, info, started_at, beat_at, expires) VALUES ($1, $2, $3, $4, $5, $5, $6)
ON CONFLICT (id) DO UPDATE SET name = $2, solo = $3, info = $4, beat_at = $5, expires = $6

-- name: lose_worker
UPDATE dayjob.worker SET lost_at = $2, resigned = $3 WHERE id = $1

-- name: drop_worker
-- $1 worker: not before all its leases have ended, or nobody would look for its jobs any more
DELETE FROM dayjob.worker AS w WHERE w.id = $1 AND NOT EXISTS (SELECT 1 FROM dayjob.lease AS l WHERE l.worker = w.id AND l.open > 0)

-- name: unlisted
-- $1 worker  $2 claims it holds  $3 claimed before  $4 up to this claim, or null
SELECT claim_no FROM dayjob.lease WHERE worker = $1 AND claim_no <> ALL ($2::bigint[]) AND claimed_at < $3
    AND ($4::bigint IS NULL OR claim_no <= $4)

-- name: jobs_of_leases
-- $1 worker  $2 claims, null for all: what still runs under them, as `held`, locked. What somebody settles at this
-- moment, perhaps in a long transaction of his own, is left for the next time.
SELECT j.entry, j.id::text, j.task, j.queue, j.attempt, j.crashes, j.round, j.parked, j.suspect, j.cancelling, j.reason, l.claim_no
FROM dayjob.lease AS l CROSS JOIN LATERAL unnest(l.ids, l.entries) AS u (id, entry) JOIN dayjob.job AS j ON j.id = u.id
WHERE l.worker = $1 AND l.open > 0 AND ($2::bigint[] IS NULL OR l.claim_no = ANY ($2)) AND j.entry = u.entry
ORDER BY j.id FOR UPDATE OF j SKIP LOCKED

-- name: drop_leases
-- $1 worker  $2 claims, null for all: those under which nothing runs any more
DELETE FROM dayjob.lease AS l WHERE l.worker = $1 AND ($2::bigint[] IS NULL OR l.claim_no = ANY ($2)) AND NOT EXISTS (
    SELECT 1 FROM unnest(l.ids, l.entries) AS u (id, entry) JOIN dayjob.job AS j ON j.id = u.id
    WHERE l.open > 0 AND j.entry = u.entry)

-- name: cancelled_of
SELECT j.id::text, j.entry FROM dayjob.job AS j WHERE j.cancelling AND (j.entry IN (
    SELECT unnest(l.entries) FROM dayjob.lease AS l WHERE l.worker = $1 AND l.open > 0)) IS TRUE

-- name: add_tallies
-- $1 minute  $2 queues  $3 names  $4 values
INSERT INTO dayjob.sample AS s (at, queue, name, value)
SELECT $1, u.queue, u.name, sum(u.value) FROM unnest($2::text[], $3::text[], $4::double precision[]) AS u (queue, name, value)
GROUP BY u.queue, u.name ORDER BY u.queue, u.name
ON CONFLICT (at, queue, name) DO UPDATE SET value = s.value + excluded.value

-- name: paused
SELECT queue FROM dayjob.paused

-- name: pause
INSERT INTO dayjob.paused (queue) VALUES ($1) ON CONFLICT DO NOTHING

-- name: resume
DELETE FROM dayjob.paused WHERE queue = $1

-- == upkeep ======================================================================================================

-- name: leads
SELECT coalesce($2::bigint, dayjob.clock()) FROM dayjob.cluster WHERE term = $1 AND leader IS NOT NULL FOR SHARE

-- name: expired_waiting
-- $1 now  $2 limit. What runs is not looked at.
SELECT j.id::text, j.queue FROM dayjob.job AS j WHERE j.expires_at <= $1 AND (j.entry IN (
    SELECT unnest(l.entries) FROM dayjob.lease AS l WHERE l.open > 0)) IS NOT TRUE
ORDER BY j.expires_at LIMIT $2 FOR UPDATE OF j

-- name: next_due
SELECT run_at FROM dayjob.job WHERE state = 'scheduled' AND run_at >= $1 ORDER BY run_at LIMIT 1

-- name: expired_workers
-- $1 live time: those to be given up, and those given up before of which something was left
SELECT id, name, solo, info, started_at, beat_at, expires, lost_at, resigned FROM dayjob.worker
WHERE (lost_at IS NULL AND expires <= $1)
    OR (lost_at IS NOT NULL AND EXISTS (SELECT 1 FROM dayjob.lease AS l WHERE l.worker = id AND l.open > 0))

-- name: past_keeping
-- $1 now  $2 limit: what was to be kept for less than a day
SELECT id::text, finished_at FROM dayjob.history WHERE keep_until <= $1 AND keep_until < finished_at + 86400000000
ORDER BY keep_until LIMIT $2

-- name: past_keeping_kept
-- $1 now  $2 limit: what has no day's partition and goes all the same
SELECT id::text, finished_at FROM dayjob.history_kept WHERE keep_until <= $1
ORDER BY keep_until LIMIT $2

-- name: past_days
-- $1 now: the partitions whose last day is over
SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'dayjob.history'::regclass AND c.relname ~ '_[0-9]{8}$'
    AND to_date(right(c.relname, 8), 'YYYYMMDD') < DATE '1970-01-01' + ($1::bigint / 86400000000)::integer
ORDER BY 2

-- name: beyond_count
-- $1 state  $2 queue  $3 limit: the oldest
SELECT id::text, finished_at FROM dayjob.history WHERE state = $1 AND queue = $2
    AND ($1 <> 'cancelled' OR reason IS NULL OR reason NOT LIKE 'moved to %://%') ORDER BY finished_at, entry LIMIT $3

-- name: moved_count
-- $1 queue: no bound counts what was moved away
SELECT count(*) FROM dayjob.history WHERE state = 'cancelled' AND queue = $1 AND reason LIKE 'moved to %://%'

-- name: beyond_task_count
-- $1 state  $2 queue or null  $3 how many stay  $4 limit  $5 task
SELECT id::text, finished_at FROM dayjob.history
WHERE state = $1 AND ($2::text IS NULL OR queue = $2) AND task = $5
    AND ($1 <> 'cancelled' OR reason IS NULL OR reason NOT LIKE 'moved to %://%')
ORDER BY finished_at DESC, entry DESC LIMIT $4 OFFSET $3

-- name: still_finished
-- $1 ids  $2 when they finished: those that are there as they were found, locked; who is retried at this moment is left out
SELECT h.id::text, h.finished_at FROM unnest($1::uuid[], $2::bigint[]) AS s (id, finished_at)
JOIN dayjob.history AS h ON h.id = s.id AND h.finished_at = s.finished_at ORDER BY h.id FOR UPDATE OF h SKIP LOCKED

-- name: fold_totals
WITH t AS (DELETE FROM dayjob.total RETURNING goes, queue, state, jobs)
INSERT INTO dayjob.total (goes, queue, state, jobs) SELECT goes, queue, state, sum(jobs) FROM t GROUP BY 1, 2, 3 HAVING sum(jobs) <> 0

-- name: all_totals
SELECT queue, state, sum(jobs)::bigint FROM dayjob.total GROUP BY queue, state

-- name: prune_small
-- $1 now: what is over of the rest
WITH g AS (DELETE FROM dayjob.gone WHERE until <= $1),
r AS (DELETE FROM dayjob.record WHERE expires_at <= $1),
s AS (DELETE FROM dayjob.sample WHERE at < $1 - 7 * 86400000000),
l AS (  -- who writes to `ready` has first made the level new by an hour
    DELETE FROM dayjob.level AS l WHERE l.used_at <= $1 - 4 * 3600000000 AND NOT EXISTS (
        SELECT 1 FROM dayjob.ready AS r WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind)
), w AS (
    DELETE FROM dayjob.worker AS w WHERE w.lost_at <= $1 - 86400000000
        AND NOT EXISTS (SELECT 1 FROM dayjob.lease AS l WHERE l.worker = w.id AND l.open > 0)
)
SELECT 1

-- name: add_samples
-- $1 minute  $2 queues  $3 names  $4 values, each queue and name once
INSERT INTO dayjob.sample (at, queue, name, value)
SELECT $1, u.queue, u.name, u.value FROM unnest($2::text[], $3::text[], $4::double precision[]) AS u (queue, name, value)
ON CONFLICT (at, queue, name) DO UPDATE SET value = excluded.value

-- == inspector ===================================================================================================

-- name: attempts
SELECT number, round, outcome, started_at, finished_at, worker, error, reason FROM dayjob.attempt WHERE id = $1::uuid ORDER BY no

-- name: logs
SELECT at, level, message FROM dayjob.log WHERE id = $1::uuid ORDER BY no

-- name: depths
SELECT queue, state, jobs FROM dayjob.depths()

-- name: oldest
SELECT l.queue, min(greatest(j.run_at, j.created_at)) FROM dayjob.level AS l
CROSS JOIN LATERAL (
    SELECT r.id FROM dayjob.ready AS r WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind
        AND r.place >= CASE WHEN l.kind = 0 THEN l.floor ELSE 0 END
    ORDER BY r.place LIMIT 1) AS r
JOIN dayjob.job AS j ON j.id = r.id WHERE l.kind <> 2 GROUP BY l.queue

-- name: rates
SELECT queue, name, value FROM dayjob.sample WHERE at = $1

-- name: recent_queues
SELECT DISTINCT queue FROM dayjob.sample WHERE at >= $1

-- name: workers
SELECT w.info, w.started_at, w.beat_at, w.id IS NOT DISTINCT FROM (SELECT c.leader FROM dayjob.cluster AS c),
    coalesce((SELECT sum(l.open) FROM dayjob.lease AS l WHERE l.worker = w.id AND l.open > 0), 0)::bigint
FROM dayjob.worker AS w WHERE w.lost_at IS NULL ORDER BY w.name, w.id

-- name: samples
SELECT at, queue, name, value FROM dayjob.sample WHERE at >= $1 AND ($2::text IS NULL OR queue = $2) ORDER BY at, queue, name

-- == records =====================================================================================================

-- name: read_record
SELECT kind, key, value, version, expires_at FROM dayjob.record
WHERE kind = $2 AND key = $3 AND (expires_at IS NULL OR expires_at > coalesce($1::bigint, dayjob.clock()))

-- name: write_record
-- $1 now  $2 kind  $3 key  $4 value  $5 expected version or null (0: must not be there)  $6 seconds to live or null
WITH t AS MATERIALIZED (SELECT coalesce($1::bigint, dayjob.clock()) AS now)
INSERT INTO dayjob.record AS r (kind, key, value, version, expires_at)
SELECT $2, $3, $4::bytea, 1, t.now + ($6::double precision * 1000000)::bigint FROM t
WHERE $5::bigint IS NULL OR $5 = 0 OR EXISTS (SELECT 1 FROM dayjob.record AS e WHERE e.kind = $2 AND e.key = $3)
ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at,
    version = CASE WHEN r.expires_at <= (SELECT now FROM t) THEN 0 ELSE r.version END + 1
    WHERE $5::bigint IS NULL OR $5 = CASE WHEN r.expires_at <= (SELECT now FROM t) THEN 0 ELSE r.version END
RETURNING version

-- name: list_records
SELECT kind, key, value, version, expires_at FROM dayjob.record
WHERE ($2::text IS NULL OR kind = $2) AND (expires_at IS NULL OR expires_at > coalesce($1::bigint, dayjob.clock()))
ORDER BY kind, key

-- name: tick_records
-- $1 keys  $2 the versions expected  $3 values. Locked in the order of their keys, so that two leaders do not wait for each other.
WITH held AS MATERIALIZED (
    SELECT r.address, s.value FROM (
        SELECT s.* FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS s (key, expected, value) ORDER BY s.key COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT r.ctid AS address FROM dayjob.record AS r
        WHERE r.kind = 'schedule' AND r.key = s.key AND r.version = s.expected FOR UPDATE) AS r
)
UPDATE dayjob.record AS r SET value = h.value, version = r.version + 1 FROM held AS h WHERE r.ctid = h.address
RETURNING r.key

-- name: erase_record
DELETE FROM dayjob.record WHERE kind = $1 AND key = $2 AND ($3::bigint IS NULL OR version = $3)

-- == copying =====================================================================================================

-- name: attempts_of
SELECT id::text, number, round, outcome, started_at, finished_at, worker, error, reason FROM dayjob.attempt
WHERE id = ANY ($1::uuid[]) ORDER BY no

-- name: logs_of
SELECT id::text, at, level, message FROM dayjob.log WHERE id = ANY ($1::uuid[]) ORDER BY no

-- name: checkpoints_of
SELECT id::text, value FROM dayjob.checkpoint WHERE id = ANY ($1::uuid[])

-- name: adopting
-- Two who adopt the same jobs take turns: the history does not know which ids it has.
SELECT pg_advisory_xact_lock(hashtext('dayjob'), 2), set_config('lock_timeout', '1s', true)

-- name: drop_moved
-- $1 ids: those that were moved away give way; what was kept with them comes back with them
WITH over AS (
    DELETE FROM dayjob.history WHERE id = ANY ($1::uuid[]) AND state = 'cancelled' AND reason LIKE 'moved to %://%'
    RETURNING id, goes, queue, state
), counted AS (
    INSERT INTO dayjob.total (goes, queue, state, jobs) SELECT goes, queue, state, -count(*) FROM over GROUP BY goes, queue, state
)
SELECT id::text FROM over

-- name: known_ids
SELECT s.id::text FROM unnest($1::uuid[]) AS s (id)
WHERE coalesce((SELECT true FROM dayjob.job AS j WHERE j.id = s.id),
    (SELECT true FROM dayjob.history AS h WHERE h.id = s.id LIMIT 1),
    (SELECT true FROM dayjob.gone AS g WHERE g.id = s.id LIMIT 1))

-- name: adopt_live
-- $1 now  $2.. columns: id, queue, task, payload, priority, max_attempts, tags, meta, options, created_at, run_at, expires_at,
-- attempt, crashes, round, suspect, recorded, progress, gating. Answers the ids that were new, and whether they want a place by
-- the turn of their lane.
WITH s AS (
    SELECT s.*, nextval('dayjob.entry') AS n
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::integer[], $7::integer[], $8::text[], $9::text[],
        $10::bytea[], $11::bigint[], $12::bigint[], $13::bigint[], $14::integer[], $15::integer[], $16::integer[],
        $17::boolean[], $18::boolean[], $19::text[], $20::jsonb[])
        AS s (id, queue, task, payload, priority, max_attempts, tags, meta, options, created_at, run_at, expires_at,
            attempt, crashes, round, suspect, recorded, progress, gating)
), new AS (
    INSERT INTO dayjob.job (id, entry, place, created_at, run_at, expires_at, priority, max_attempts, attempt, crashes, round,
        suspect, recorded, state, queue, task, payload, tags, meta, options, progress, gating)
    SELECT id, n, n, created_at, run_at, expires_at, priority, max_attempts, attempt, crashes, round, suspect, recorded,
        CASE WHEN run_at > $1::bigint THEN 'scheduled' ELSE dayjob.next_state(gating) END, queue, task, payload, tags, meta, options,
        progress, gating
    FROM s ON CONFLICT (id) DO NOTHING
    RETURNING id, entry, place, queue, priority, CASE WHEN suspect THEN 2 ELSE 0 END AS kind,
        state = 'available' AND (gating ? 'lane') IS NOT TRUE AS plain, state = 'available' AND gating ? 'lane' AS laned
), known AS (
    INSERT INTO dayjob.level AS l (queue, priority, kind, used_at)
    SELECT n.queue, n.priority, n.kind, $1 FROM (SELECT DISTINCT queue, priority, kind FROM new WHERE plain) AS n
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
        AND k.used_at > $1 - 3600000000)
    ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
), stored AS (
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
    SELECT place, entry, id, priority, kind, queue FROM new WHERE plain
)
SELECT id::text, coalesce(laned, false) FROM new ORDER BY entry

-- name: adopt_finished
-- $1 now  $2.. columns: as above up to expires_at; attempt, crashes, round, recorded, progress; state, reason, result, error,
-- started_at, finished_at, keep_until, worker, gating. As in `finish`, what is kept for less than two months has its day.
WITH kept AS (
    INSERT INTO dayjob.history (id, entry, created_at, run_at, expires_at, started_at, finished_at, keep_until, goes,
        priority, max_attempts, attempt, crashes, round, recorded, state, queue, task, payload, result, error, tags, meta,
        options, reason, worker, progress, gating)
    SELECT id, nextval('dayjob.entry'), created_at, run_at, expires_at, started_at, finished_at, keep_until,
        CASE WHEN keep_until < $1::bigint + 5400000000000 THEN DATE '1970-01-01' + (keep_until / 86400000000)::integer
            ELSE 'infinity' END,
        priority, max_attempts, attempt, crashes, round, recorded, state, queue, task, payload, result, error, tags, meta,
        options, reason, worker, progress, gating
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::integer[], $7::integer[], $8::text[], $9::text[],
        $10::bytea[], $11::bigint[], $12::bigint[], $13::bigint[], $14::integer[], $15::integer[], $16::integer[],
        $17::boolean[], $18::text[], $19::text[], $20::text[], $21::bytea[], $22::bytea[], $23::bigint[], $24::bigint[],
        $25::bigint[], $26::text[], $27::jsonb[])
        AS s (id, queue, task, payload, priority, max_attempts, tags, meta, options, created_at, run_at, expires_at,
            attempt, crashes, round, recorded, progress, state, reason, result, error, started_at, finished_at, keep_until,
            worker, gating)
    RETURNING goes, queue, state
)
INSERT INTO dayjob.total (goes, queue, state, jobs) SELECT goes, queue, state, count(*) FROM kept GROUP BY goes, queue, state

-- name: adopt_attempts
INSERT INTO dayjob.attempt (id, number, round, outcome, started_at, finished_at, worker, error, reason)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::bigint[], $6::bigint[], $7::text[],
    $8::bytea[], $9::text[])

-- name: adopt_logs
INSERT INTO dayjob.log (id, at, level, message) SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[])

-- name: adopt_checkpoints
INSERT INTO dayjob.checkpoint (id, value) SELECT * FROM unnest($1::uuid[], $2::bytea[]) ON CONFLICT (id) DO NOTHING

-- name: take_keys
-- $1 now  $2 ids  $3 their gatings: the ids of those that get no key, as another has it
SELECT k.id::text FROM (
    SELECT u.id, u.gating FROM unnest($2::uuid[], $3::jsonb[]) WITH ORDINALITY AS u (id, gating, n)
    WHERE u.gating ? 'unique' ORDER BY u.gating #>> '{unique,hash}', u.n) AS k
WHERE dayjob.take_key(k.gating, k.id, coalesce($1::bigint, dayjob.clock())) IS NOT NULL

-- name: retake_keys
-- $1 now  $2 ids of finished jobs: as `take_keys`
SELECT k.id::text FROM (
    SELECT o.id, h.gating FROM unnest($2::uuid[]) WITH ORDINALITY AS o (id, n) CROSS JOIN LATERAL (
        SELECT h.gating FROM dayjob.history AS h WHERE h.id = o.id ORDER BY h.entry DESC LIMIT 1) AS h
    WHERE h.gating ? 'unique' ORDER BY h.gating #>> '{unique,hash}', o.n) AS k
WHERE dayjob.take_key(k.gating, k.id, coalesce($1::bigint, dayjob.clock())) IS NOT NULL

-- name: place_lanes
-- $1 now  $2 ids of available jobs with lanes, in order
SELECT dayjob.place_lanes($2::uuid[], coalesce($1::bigint, dayjob.clock()))

-- == gates =======================================================================================================

-- name: admit
-- $1 term  $2 now  $3 limit  $4 after so many microseconds idle jobs are taken back  $5 after this gate. Answers now (null: another
-- leads), how many were admitted, when time opens the next gate, and where to go on.
SELECT moment, admitted, opens, rest::text FROM dayjob.sweep_lines($1, $2, $3, $4, $5::uuid)

-- name: sweep_gates
-- $1 now  $2 a gate. Answers where to go on, and whether there may be a lot more.
SELECT rest::text, plenty FROM dayjob.sweep_gates($1, $2::uuid)

-- name: gates
-- $1 now  $2 keys or null  $3 limit
SELECT g.kind, g.key, coalesce(g.said_tokens, g.tokens), coalesce(g.said_per, g.per), c.taken, w.waiting,
    CASE WHEN g.shut_until > $1 THEN g.shut_until WHEN g.kind = 'rate' AND c.taken >= coalesce(g.said_tokens, g.tokens) THEN (
        SELECT t.until FROM dayjob.token AS t WHERE t.gate = g.id AND (t.until IS NULL OR t.until > $1) ORDER BY t.until
        LIMIT 1 OFFSET c.taken - coalesce(g.said_tokens, g.tokens)) END
FROM dayjob.gate AS g CROSS JOIN LATERAL (
    SELECT count(*) AS taken FROM dayjob.token AS t WHERE t.gate = g.id AND (t.until IS NULL OR t.until > $1)) AS c
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting FROM (
        SELECT 1 FROM dayjob.line AS l JOIN dayjob.waits AS w ON w.line = l.id WHERE l.gate = g.id LIMIT 10000) AS w) AS w
WHERE ($2::text[] IS NULL OR g.key = ANY ($2)) AND (c.taken > 0 OR w.waiting > 0) ORDER BY g.kind, g.key LIMIT $3

-- name: say_limit
-- $1 kind  $2 key  $3 tokens or null  $4 seconds, of a rate
INSERT INTO dayjob.gate AS g (id, kind, key, tokens, per, said_tokens, said_per)
VALUES (dayjob.gate_id($1, $2), $1, $2, coalesce($3::integer, 1), $4, $3, CASE WHEN $3 IS NOT NULL AND $1 = 'rate' THEN $4::double precision END)
ON CONFLICT (id) DO UPDATE SET said_tokens = excluded.said_tokens, said_per = excluded.said_per

-- name: restamp
-- $1 kind  $2 key  $3 now: tokens of a rate end by its present period
UPDATE dayjob.token AS t SET until = t.at + (coalesce(g.said_per, g.per) * 1000000)::bigint FROM dayjob.gate AS g
WHERE g.id = dayjob.gate_id($1, $2) AND g.kind = 'rate' AND t.gate = g.id AND t.until > $3

-- name: park_surplus
-- $1 kind  $2 key  $3 now: of those admitted and not claimed, the least urgent that are beyond the limit
SELECT dayjob.park(ARRAY(
    SELECT j.id FROM dayjob.gate AS g JOIN dayjob.token AS t ON t.gate = g.id
    JOIN dayjob.job AS j ON t.no <> 0 AND t.until IS NULL AND j.id = t.holder::uuid AND j.entry = t.no
    JOIN dayjob.ready AS r ON r.queue = j.queue AND r.priority = j.priority AND r.kind IN (1, 2) AND r.place = j.place AND r.entry = j.entry
    WHERE g.id = dayjob.gate_id($1, $2) AND g.kind IN ('concurrency', 'rate')
    ORDER BY j.priority, j.place DESC LIMIT (
        SELECT greatest(count(*) - max(coalesce(h.said_tokens, h.tokens)), 0) FROM dayjob.gate AS h JOIN dayjob.token AS c ON c.gate = h.id
        WHERE h.id = dayjob.gate_id($1, $2) AND (c.until IS NULL OR c.until > $3))), false)

-- name: wake_gate
-- $1 kind  $2 key
INSERT INTO dayjob.wake (target, line) VALUES (dayjob.gate_id($1, $2), false) ON CONFLICT DO NOTHING

-- name: know_gates
-- $1 JSON: gates
SELECT dayjob.know_gates(ARRAY[$1::jsonb], ARRAY[0::bigint])

-- name: free_tokens
-- $1 kinds  $2 keys  $3 now
SELECT unnest(dayjob.free_tokens(ARRAY(
    SELECT dayjob.gate_id(u.kind, u.key) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (kind, key, n) ORDER BY u.n), $3))

-- name: opening
-- $1 kinds  $2 keys  $3 now: the earliest stamps at which each may have a token
SELECT CASE WHEN g.shut_until > $3 THEN g.shut_until
    WHEN g.kind = 'breaker' THEN (SELECT b.until FROM dayjob.breaker AS b WHERE b.key = g.key AND b.state = 'open') ELSE (
    SELECT t.until FROM dayjob.token AS t WHERE t.gate = g.id AND t.until > $3 ORDER BY t.until LIMIT 1) END
FROM unnest($1::text[], $2::text[]) AS u (kind, key) JOIN dayjob.gate AS g ON g.id = dayjob.gate_id(u.kind, u.key)

-- name: has_tokens
-- $1 holder  $2 now  $3 kinds  $4 keys: of how many of these gates it has a token
SELECT count(*) FROM dayjob.token AS t WHERE t.holder = $1 AND t.no = 0 AND t.until > $2
    AND t.gate = ANY (ARRAY(SELECT dayjob.gate_id(u.kind, u.key) FROM unnest($3::text[], $4::text[]) AS u (kind, key)))

-- name: still_holds
-- $1 holder  $2 now. A rate's token is there until its time, whatever the holder has.
SELECT EXISTS (SELECT 1 FROM dayjob.token AS t WHERE t.holder = $1 AND t.no = 0 AND t.kind <> 'rate' AND t.until > $2)

-- name: prolong_tokens
-- $1 holder  $2 now  $3 until
UPDATE dayjob.token AS t SET until = $3 WHERE t.holder = $1 AND t.no = 0 AND t.kind <> 'rate' AND t.until > $2

-- name: take_tokens
-- $1 kinds  $2 keys  $3 holder  $4 now  $5 until
INSERT INTO dayjob.token AS t (gate, holder, no, kind, at, until)
SELECT g.id, $3, 0, g.kind, $4::bigint, CASE WHEN g.kind = 'rate' THEN $4 + (coalesce(g.said_per, g.per) * 1000000)::bigint ELSE $5::bigint END
FROM unnest($1::text[], $2::text[]) AS u (kind, key) JOIN dayjob.gate AS g ON g.id = dayjob.gate_id(u.kind, u.key)
ON CONFLICT (gate, holder, no) DO UPDATE SET at = excluded.at, until = excluded.until

-- name: wake_openings
-- $1 kinds  $2 keys  $3 now: what waits at these gates knows when they open
SELECT dayjob.set_opens(ARRAY(SELECT dayjob.gate_id(u.kind, u.key) FROM unnest($1::text[], $2::text[]) AS u (kind, key)), $3)

-- name: give_tokens
-- $1 holder: a rate's tokens stay until their time, and are nobody's
WITH gone AS (DELETE FROM dayjob.token AS t WHERE t.holder = $1 AND t.no = 0 AND t.kind <> 'rate' RETURNING t.gate),
kept AS (UPDATE dayjob.token AS t SET no = -nextval('dayjob.entry') WHERE t.holder = $1 AND t.no = 0 AND t.kind = 'rate')
INSERT INTO dayjob.wake (target, line) SELECT g.gate, false FROM gone AS g ON CONFLICT DO NOTHING

-- name: delay_gate
-- $1 kind  $2 key  $3 until
INSERT INTO dayjob.gate AS g (id, kind, key, tokens, per, shut_until) VALUES (dayjob.gate_id($1, $2), $1, $2, 1, 1, $3)
ON CONFLICT (id) DO UPDATE SET shut_until = greatest(g.shut_until, excluded.shut_until)

-- name: breakers
-- $1 keys or null
SELECT b.key, b.state, b.since, b.until, b.fails, b.within FROM dayjob.breaker AS b
WHERE $1::text[] IS NULL OR b.key = ANY ($1) ORDER BY b.key

-- name: set_breaker
-- $1 key  $2 state  $3 since  $4 until  $5 failures  $6 window
INSERT INTO dayjob.breaker (key, state, since, until, fails, within) VALUES ($1, $2, $3, $4, $5::bigint[], $6)
ON CONFLICT (key) DO UPDATE SET state = $2, since = $3, until = $4, fails = $5::bigint[], within = $6

-- name: forget_breaker
DELETE FROM dayjob.breaker WHERE key = $1

-- name: park_behind
-- $1 key: what is admitted behind this breaker, and not claimed
SELECT dayjob.park(ARRAY(SELECT t.holder::uuid FROM dayjob.token AS t WHERE t.gate = dayjob.gate_id('breaker', $1) AND t.no <> 0), false)

-- == the limits of queues ========================================================================================

-- name: queue_limits
-- $1 whose, or null: those in force
SELECT DISTINCT ON (queue) queue, origin, max_depth, when_full, concurrency, rate, per, closed FROM dayjob.queue_limit
WHERE $1::text IS NULL OR origin = $1 ORDER BY queue, origin DESC

-- name: limit_queue
-- $1 queue  $2 origin  $3.. the limits
INSERT INTO dayjob.queue_limit (queue, origin, max_depth, when_full, concurrency, rate, per, closed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (queue, origin) DO UPDATE SET max_depth = $3, when_full = $4, concurrency = $5, rate = $6, per = $7, closed = $8

-- name: unlimit_queue
DELETE FROM dayjob.queue_limit WHERE queue = $1 AND origin = $2

-- name: restamp_queue
-- $1 queue  $2 now: claims count by the present period
UPDATE dayjob.token AS t SET until = t.at + (l.per * 1000000)::bigint FROM dayjob.limit_in_force AS l
WHERE l.queue = $1 AND l.rate IS NOT NULL AND t.gate = dayjob.gate_id('queue', $1) AND t.until > $2

-- name: owing
-- Whether there are jobs for which nobody has gone yet from a queue that drops its oldest
SELECT EXISTS (SELECT 1 FROM dayjob.overfull)

-- name: make_room
-- $1 now
SELECT dayjob.make_room(NULL, coalesce($1::bigint, dayjob.clock()))
