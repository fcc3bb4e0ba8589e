-- One statement per operation. Batches come in as one JSON array or as many rows of one VALUES ({rows}), and go out as
-- one row: every row that Python fetches or binds by itself crosses the interpreter lock, and beside a busy thread each
-- crossing may take 5 ms.

-- name: last_entry
-- Numbers only rise: above all that is stored, and above what was when rows were last deleted (`keep_entries_rising`).
-- So handing out a number writes nothing, and a lone enqueue commits one page less.
SELECT max(entry, coalesce((SELECT max(entry) FROM dayjob_job), 0),
    coalesce((SELECT max(entry) FROM dayjob_history), 0)), limited FROM dayjob_cluster

-- name: keep_entries_rising
UPDATE dayjob_cluster SET entry = max(entry, coalesce((SELECT max(entry) FROM dayjob_job), 0),
    coalesce((SELECT max(entry) FROM dayjob_history), 0))

-- name: is_gated
SELECT gated FROM dayjob_cluster

-- name: bump_control
UPDATE dayjob_cluster SET control = control + 1

-- == enqueue =====================================================================================================

-- name: insert
INSERT INTO dayjob_job (
    entry, place, id, queue, task, state, priority, payload, max_attempts, created_at, run_at, expires_at, tags, meta,
    options)
VALUES {rows}

-- name: insert_alone
-- `insert` of one row that takes its number by itself (`last_entry`). Where a queue has limits there is no number, and the
-- place may not be null.
INSERT INTO dayjob_job (
    entry, place, id, queue, task, state, priority, payload, max_attempts, created_at, run_at, expires_at, tags, meta,
    options)
SELECT l.n + 1, l.n + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
FROM (SELECT max((SELECT iif(limited, NULL, entry) FROM dayjob_cluster), coalesce((SELECT max(entry) FROM dayjob_job), 0),
    coalesce((SELECT max(entry) FROM dayjob_history), 0)) AS n) AS l

-- name: known_ids
SELECT j.value FROM json_each(?1) AS j WHERE EXISTS (SELECT 1 FROM dayjob_job WHERE id = j.value)
    OR EXISTS (SELECT 1 FROM dayjob_history WHERE id = j.value) OR EXISTS (SELECT 1 FROM dayjob_gone WHERE id = j.value)

-- == in a caller's transaction ===================================================================================

-- name: main_file
SELECT file FROM pragma_database_list WHERE name = 'main'

-- name: insert_joined
-- Rows: number from 1, then the columns of `insert`; then our file. Begins with INSERT, by which drivers know that a
-- transaction is to be begun. Reads nothing before: a transaction that has read may not be able to write any more. An id
-- that is known, or twice among the rows, is left out; what is returned was stored. Nothing, where a queue has limits.
INSERT INTO dayjob_job (
    entry, place, id, queue, task, state, priority, payload, max_attempts, created_at, run_at, expires_at, tags, meta,
    options)
WITH g (no, id, queue, task, state, priority, payload, max_attempts, created_at, run_at, expires_at, tags, meta,
    options) AS (VALUES {rows})
SELECT l.n + g.no, l.n + g.no, g.id, g.queue, g.task, g.state, g.priority, g.payload, g.max_attempts, g.created_at,
    g.run_at, g.expires_at, g.tags, g.meta, g.options
FROM (SELECT max(entry, coalesce((SELECT max(entry) FROM dayjob_job), 0),
    coalesce((SELECT max(entry) FROM dayjob_history), 0)) AS n FROM dayjob_cluster WHERE limited = 0) AS l CROSS JOIN g
WHERE NOT EXISTS (SELECT 1 FROM dayjob_history AS h WHERE h.id = g.id)
    AND NOT EXISTS (SELECT 1 FROM dayjob_gone AS o WHERE o.id = g.id)
    AND EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'main' AND file = ?)
ON CONFLICT (id) DO NOTHING
RETURNING id || ''

-- name: forget_one
DELETE FROM dayjob_job WHERE entry = ?

-- name: add_logs_joined
INSERT INTO dayjob_log (id, at, level, message) VALUES {rows}

-- name: stands
-- ?1 entry  ?2 id  ?3 worker: 1 while it runs there, 2 when it has completed, else 0
SELECT CASE
    WHEN EXISTS (SELECT 1 FROM dayjob_job AS j JOIN dayjob_lease AS l ON l.no = j.lease
        WHERE j.entry = ?1 AND j.id = ?2 AND j.state = 'running' AND l.worker = ?3) THEN 1
    WHEN EXISTS (SELECT 1 FROM dayjob_history WHERE entry = ?1 AND id = ?2 AND state = 'completed') THEN 2
    WHEN EXISTS (SELECT 1 FROM dayjob_gone WHERE id = ?2) AND NOT EXISTS (SELECT 1 FROM dayjob_job WHERE id = ?2) THEN 2
    ELSE 0 END

-- == settle ======================================================================================================

-- name: finish
-- Rows: entry, id, started, finished, keep until, result or error. Then: state, reason, 1 for results (twice), attempts
-- and crashes added, worker (twice). Bound values beat one JSON array, which is taken apart field by field, by 3 of the
-- 20 microseconds that a job costs here. OR REPLACE: see `Jobs.enqueue` on ids that finished and were stored again.
INSERT OR REPLACE INTO dayjob_history (
    entry, id, queue, task, state, reason, priority, payload, result, error, max_attempts, created_at, run_at,
    expires_at, started_at, finished_at, keep_until, tags, meta, options, attempt, crashes, round, worker, progress,
    gating)
WITH s (entry, id, started_at, finished_at, keep_until, body) AS (VALUES {rows})
SELECT j.entry, j.id, j.queue, j.task, ?, ?, j.priority, j.payload, iif(?, s.body, NULL), iif(?, NULL, s.body),
    j.max_attempts, j.created_at, j.run_at, j.expires_at, nullif(s.started_at, 0), s.finished_at, s.keep_until,
    j.tags, j.meta, j.options, j.attempt + ?, j.crashes + ?, j.round,
    (SELECT name FROM dayjob_worker WHERE id = ?), j.progress, j.gating
FROM s CROSS JOIN dayjob_job AS j ON j.entry = s.entry
WHERE j.id = s.id AND j.state = 'running' AND j.lease IN (SELECT no FROM dayjob_lease WHERE worker = ?)

-- name: forget
DELETE FROM dayjob_job WHERE entry IN (SELECT value FROM json_each(?))

-- name: held
-- ?1 JSON [[entry, id, …], …]  ?2 worker: those that still run under it
SELECT json_group_array(json_array(
    j.entry, j.id, j.task, j.queue, j.attempt, j.crashes, j.round, j.parked, j.suspect, j.cancelling,
    j.reason))
FROM json_each(?1) AS s CROSS JOIN dayjob_job AS j ON j.entry = json_extract(s.value, '$[0]')
WHERE j.id = json_extract(s.value, '$[1]') AND j.state = 'running'
    AND j.lease IN (SELECT no FROM dayjob_lease WHERE worker = ?2)

-- name: put_back
-- ?1 JSON [[entry, new entry, state, attempt, crashes, suspect, parked, run_at or null, reason or null, begun], …]
-- What has begun cannot expire any more. What has gates stands at them again. A new entry may not cost a job of a
-- lane its place among equals: it goes before them.
UPDATE dayjob_job SET entry = json_extract(s.value, '$[1]'),
    state = iif(line IS NOT NULL AND json_extract(s.value, '$[2]') = 'available', 'blocked', json_extract(s.value, '$[2]')),
    attempt = json_extract(s.value, '$[3]'), crashes = json_extract(s.value, '$[4]'),
    suspect = json_extract(s.value, '$[5]'), parked = json_extract(s.value, '$[6]'),
    run_at = coalesce(json_extract(s.value, '$[7]'), run_at), reason = json_extract(s.value, '$[8]'),
    expires_at = iif(json_extract(s.value, '$[9]'), NULL, expires_at),
    place = place - iif(lane IS NOT NULL AND json_extract(s.value, '$[2]') = 'available', 1, 0), lease = NULL, cancelling = 0
FROM json_each(?1) AS s WHERE dayjob_job.entry = json_extract(s.value, '$[0]')

-- name: add_attempts
-- ?1 JSON [[id, number, round, outcome, started or 0, finished, reason, offset, length or null], …]  ?2 worker id  ?3 errors
INSERT INTO dayjob_attempt (id, number, round, outcome, started_at, finished_at, worker, reason, error)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), nullif(json_extract(value, '$[4]'), 0), json_extract(value, '$[5]'),
    (SELECT name FROM dayjob_worker WHERE id = ?2), json_extract(value, '$[6]'),
    iif(json_extract(value, '$[8]') = 0, x'', substr(?3, json_extract(value, '$[7]'), json_extract(value, '$[8]')))
FROM json_each(?1)

-- name: trim_attempts
-- ?1 JSON [[id, …], …]: of each job the first 10 and the newest 90 attempts stay
DELETE FROM dayjob_attempt WHERE no IN (
    SELECT no FROM (
        SELECT a.no, row_number() OVER (PARTITION BY a.id ORDER BY a.no) AS first,
            row_number() OVER (PARTITION BY a.id ORDER BY a.no DESC) AS last
        FROM (SELECT DISTINCT json_extract(value, '$[0]') AS id FROM json_each(?1)) AS s
        CROSS JOIN dayjob_attempt AS a ON a.id = s.id
        WHERE (SELECT count(*) FROM dayjob_attempt AS other WHERE other.id = s.id) > 100)
    WHERE first > 10 AND last > 90)
RETURNING no

-- == stage and claim =============================================================================================

-- name: next_due
SELECT run_at FROM dayjob_job WHERE state = 'scheduled' ORDER BY run_at LIMIT 1

-- name: count_due
SELECT count(*) FROM (SELECT 1 FROM dayjob_job WHERE state = 'scheduled' AND run_at <= ?1 LIMIT ?2)

-- name: stage
-- ?1 now  ?2 limit  ?3 last entry before the new ones. Who stood in a strict lane before stands there again (`changing`).
UPDATE dayjob_job SET state = iif(line IS NULL, 'available', 'blocked'), entry = ?3 + due.n,
    place = iif(line < 0 AND place < entry, place, ?3 + due.n)
FROM (SELECT entry AS old, row_number() OVER (ORDER BY run_at, entry) AS n
      FROM (SELECT entry, run_at FROM dayjob_job WHERE state = 'scheduled' AND run_at <= ?1 ORDER BY run_at LIMIT ?2)
     ) AS due
WHERE dayjob_job.entry = due.old

-- name: ready_queues
WITH RECURSIVE q (name) AS (
    SELECT (SELECT queue FROM dayjob_job WHERE state = 'available' AND suspect = 0 ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM dayjob_job WHERE state = 'available' AND suspect = 0 AND queue > q.name
            ORDER BY queue LIMIT 1) FROM q WHERE q.name IS NOT NULL)
SELECT name FROM q WHERE name IS NOT NULL AND name NOT IN (SELECT queue FROM dayjob_paused)

-- name: available
SELECT json_group_array(entry) FROM dayjob_job WHERE id = ?1 AND state = 'available';

-- name: suspect_queues
SELECT DISTINCT queue FROM dayjob_job INDEXED BY dayjob_job_suspect
WHERE state = 'available' AND suspect = 1 AND queue NOT IN (SELECT queue FROM dayjob_paused)

-- name: most_urgent
-- ?1 JSON array of entries  ?2 how many
SELECT json_group_array(entry) FROM (
    SELECT j.entry FROM json_each(?1) AS e CROSS JOIN dayjob_job AS j ON j.entry = e.value
    ORDER BY j.priority DESC, j.place, j.entry LIMIT ?2)

-- name: paused
SELECT queue FROM dayjob_paused

-- name: situation
-- ?1 worker  ?2 claim number: all that a turn must know before it claims, in one crossing
SELECT control, (SELECT run_at FROM dayjob_job WHERE state = 'scheduled' ORDER BY run_at LIMIT 1),
    EXISTS (SELECT 1 FROM dayjob_worker WHERE id = ?1 AND lost_at IS NULL),
    (SELECT no FROM dayjob_lease WHERE worker = ?1 AND claim_no = ?2),
    EXISTS (SELECT 1 FROM dayjob_job WHERE state = 'available' AND suspect = 1),
    EXISTS (SELECT 1 FROM dayjob_paused), gated, limited
FROM dayjob_cluster

-- name: entries_of_lease
SELECT entries FROM dayjob_lease WHERE no = ?

-- name: add_lease
INSERT INTO dayjob_lease (worker, claim_no, claimed_at, entries) VALUES (?, ?, ?, ?)

-- name: extend_lease
UPDATE dayjob_lease SET entries = ?2 WHERE no = ?1

-- name: run
UPDATE dayjob_job SET state = 'running', lease = ?1 WHERE entry IN (SELECT value FROM json_each(?2))

-- name: fetch
-- ?1 JSON array of entries, in order; ?2 the lease they run under
SELECT json_group_array(json_array(j.entry, j.id, j.task, j.queue, j.priority, j.attempt, j.crashes, j.round, j.parked,
        j.max_attempts, j.created_at, j.run_at, j.expires_at, j.tags, j.meta,
        CASE WHEN j.options IS NULL THEN NULL ELSE '' END, json(iif(j.recorded, 'true', 'false')),
        json(iif(j.suspect, 'true', 'false')), '')),
    json_group_array(length(j.payload)), CAST(group_concat(j.payload, '') AS BLOB),
    json_group_array(length(j.options)), CAST(group_concat(j.options, '') AS BLOB)
FROM json_each(?1) AS e CROSS JOIN dayjob_job AS j ON j.entry = e.value
WHERE j.state = 'running' AND j.lease = ?2

-- == record ======================================================================================================

-- name: runs_under
SELECT j.entry FROM dayjob_job AS j JOIN dayjob_lease AS l ON l.no = j.lease
WHERE j.entry = ?1 AND j.id = ?2 AND j.state = 'running' AND l.worker = ?3

-- name: set_progress
UPDATE dayjob_job SET progress = ?1 WHERE entry = ?2

-- name: set_checkpoint
INSERT INTO dayjob_checkpoint (id, value) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET value = excluded.value

-- name: mark_recorded
UPDATE dayjob_job SET recorded = 1 WHERE entry = ?

-- name: add_logs
INSERT INTO dayjob_log (id, at, level, message) VALUES (?, ?, ?, ?)

-- name: trim_logs
DELETE FROM dayjob_log WHERE id = ?1 AND no <= (
    SELECT no FROM dayjob_log WHERE id = ?1 ORDER BY no DESC LIMIT 1 OFFSET 1000)

-- name: checkpoint
SELECT value FROM dayjob_checkpoint WHERE id = ?

-- == act =========================================================================================================

-- name: cancel_waiting
-- ?1 JSON array of entries  ?2 reason  ?3 now  ?4 keep until
INSERT OR REPLACE INTO dayjob_history (
    entry, id, queue, task, state, reason, priority, payload, max_attempts, created_at, run_at, expires_at, finished_at,
    keep_until, tags, meta, options, attempt, crashes, round, progress, gating)
SELECT entry, id, queue, task, 'cancelled', ?2, priority, payload, max_attempts, created_at, run_at, expires_at, ?3,
    ?4, tags, meta, options, attempt, crashes, round, progress, gating
FROM dayjob_job WHERE entry IN (SELECT value FROM json_each(?1))

-- name: ask_to_cancel
UPDATE dayjob_job SET cancelling = 1, reason = ?2 WHERE entry IN (SELECT value FROM json_each(?1))

-- name: revive
-- ?1 JSON [[history entry, lane, line], …]  ?2 last entry before the new ones  ?3 now
INSERT OR IGNORE INTO dayjob_job (
    entry, id, place, queue, task, state, priority, payload, max_attempts, created_at, run_at, tags, meta, options, round,
    gating, lane, line)
SELECT ?2 + e.key + 1, h.id, ?2 + e.key + 1, h.queue, h.task,
    iif(json_extract(e.value, '$[2]') IS NULL, 'available', 'blocked'), h.priority, h.payload, h.max_attempts,
    h.created_at, ?3, h.tags, h.meta, h.options, h.round + 1, h.gating, json_extract(e.value, '$[1]'),
    json_extract(e.value, '$[2]')
FROM json_each(?1) AS e CROSS JOIN dayjob_history AS h ON h.entry = json_extract(e.value, '$[0]')

-- name: promote
-- ?1 JSON array of entries  ?2 last entry before the new ones  ?3 now: as `stage`
UPDATE dayjob_job SET entry = ?2 + e.key + 1, state = iif(line IS NULL, 'available', 'blocked'), run_at = ?3,
    place = iif(line < 0 AND place < entry, place, ?2 + e.key + 1)
FROM json_each(?1) AS e WHERE dayjob_job.entry = e.value

-- name: forget_finished
DELETE FROM dayjob_history WHERE entry IN (SELECT value FROM json_each(?))

-- name: drop_attempts
DELETE FROM dayjob_attempt WHERE id IN (SELECT value FROM json_each(?))

-- name: drop_logs
DELETE FROM dayjob_log WHERE id IN (SELECT value FROM json_each(?))

-- name: drop_checkpoints
DELETE FROM dayjob_checkpoint WHERE id IN (SELECT value FROM json_each(?))

-- name: remember_gone
INSERT INTO dayjob_gone (id, until) SELECT value, ?2 FROM json_each(?1)

-- == upkeep ======================================================================================================

-- name: leads
SELECT 1 FROM dayjob_cluster WHERE term = ? AND leader IS NOT NULL

-- name: expired_waiting
SELECT json_group_array(json_array(entry, queue)) FROM (
    SELECT entry, queue FROM dayjob_job WHERE expires_at <= ?1 AND state IN ('available', 'scheduled', 'blocked')
    ORDER BY expires_at LIMIT ?2)

-- name: expired_workers
SELECT id FROM dayjob_worker WHERE lost_at IS NULL AND expires <= ?

-- name: past_keeping
SELECT json_group_array(json_array(entry, id, finished_at)) FROM (
    SELECT entry, id, finished_at FROM dayjob_history WHERE keep_until <= ?1 ORDER BY keep_until LIMIT ?2)

-- name: queues_in_history
-- ?1 state: one seek per queue
WITH RECURSIVE q (name) AS (
    SELECT (SELECT queue FROM dayjob_history WHERE state = ?1 ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM dayjob_history WHERE state = ?1 AND queue > q.name ORDER BY queue LIMIT 1)
    FROM q WHERE q.name IS NOT NULL)
SELECT name FROM q WHERE name IS NOT NULL

-- name: beyond_count
-- ?1 state  ?2 queue  ?3 how many stay  ?4 limit
SELECT json_group_array(json_array(entry, id, finished_at)) FROM (
    SELECT entry, id, finished_at FROM dayjob_history WHERE state = ?1 AND queue = ?2 ORDER BY finished_at, entry
    LIMIT max(0, min(?4, (SELECT count(*) FROM dayjob_history WHERE state = ?1 AND queue = ?2) - ?3)))

-- name: beyond_count_unmoved
-- The same of cancelled jobs: what was moved away goes by its time alone.
SELECT json_group_array(json_array(entry, id, finished_at)) FROM (
    SELECT entry, id, finished_at FROM dayjob_history
    WHERE state = ?1 AND queue = ?2 AND (reason IS NULL OR reason NOT LIKE 'moved to %://%') ORDER BY finished_at, entry
    LIMIT max(0, min(?4, (SELECT count(*) FROM dayjob_history
        WHERE state = ?1 AND queue = ?2 AND (reason IS NULL OR reason NOT LIKE 'moved to %://%')) - ?3)))

-- name: beyond_task_count
-- ?1 state  ?2 queue or null  ?3 how many stay  ?4 limit  ?5 task
SELECT json_group_array(json_array(entry, id, finished_at)) FROM (
    SELECT entry, id, finished_at FROM dayjob_history
    WHERE state = ?1 AND (?2 IS NULL OR queue = ?2) AND task = ?5
        AND (?1 <> 'cancelled' OR reason IS NULL OR reason NOT LIKE 'moved to %://%')
    ORDER BY finished_at DESC, entry DESC LIMIT ?4 OFFSET ?3)

-- name: prune_gone
DELETE FROM dayjob_gone WHERE no IN (SELECT no FROM dayjob_gone ORDER BY no LIMIT 5000) AND until <= ?

-- name: prune_records
DELETE FROM dayjob_record WHERE expires_at <= ?

-- name: prune_samples
DELETE FROM dayjob_sample WHERE at < ?

-- name: prune_workers
DELETE FROM dayjob_worker WHERE lost_at <= ?

-- name: add_sample
INSERT INTO dayjob_sample (at, queue, name, value) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (at, queue, name) DO UPDATE SET value = excluded.value

-- == cluster =====================================================================================================

-- name: cluster
SELECT live, beat_at, term, leader, control FROM dayjob_cluster

-- name: set_cluster
UPDATE dayjob_cluster SET live = ?, beat_at = ?, term = ?, leader = ?

-- name: end_leader
UPDATE dayjob_cluster SET leader = NULL WHERE leader = ?

-- name: worker
SELECT id, name, solo, info, started_at, beat_at, expires, lost_at FROM dayjob_worker WHERE id = ?

-- name: set_worker
INSERT INTO dayjob_worker (id, name, solo, info, started_at, beat_at, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)
ON CONFLICT (id) DO UPDATE SET name = ?2, solo = ?3, info = ?4, beat_at = ?5, expires = ?6

-- name: lose_worker
UPDATE dayjob_worker SET lost_at = ?2 WHERE id = ?1

-- name: drop_worker
DELETE FROM dayjob_worker WHERE id = ?

-- name: leases_of_worker
SELECT no, claim_no, claimed_at FROM dayjob_lease WHERE worker = ?

-- name: jobs_of_leases
-- ?1 JSON array of lease numbers: what still runs under them, as `held`
SELECT json_group_array(json_array(
    j.entry, j.id, j.task, j.queue, j.attempt, j.crashes, j.round, j.parked, j.suspect, j.cancelling,
    j.reason))
FROM json_each(?1) AS n CROSS JOIN dayjob_lease AS l ON l.no = n.value
CROSS JOIN json_each(l.entries) AS e CROSS JOIN dayjob_job AS j ON j.entry = e.value
WHERE j.state = 'running' AND j.lease = l.no

-- name: drop_leases
DELETE FROM dayjob_lease WHERE no IN (SELECT value FROM json_each(?))

-- name: cancelled_of
SELECT id, entry FROM dayjob_job
WHERE cancelling = 1 AND lease IN (SELECT no FROM dayjob_lease WHERE worker = ?)

-- name: add_tally
INSERT INTO dayjob_sample (at, queue, name, value) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (at, queue, name) DO UPDATE SET value = value + excluded.value

-- name: pause
INSERT OR IGNORE INTO dayjob_paused (queue) VALUES (?)

-- name: resume
DELETE FROM dayjob_paused WHERE queue = ?

-- == inspector ===================================================================================================

-- name: attempts
SELECT number, round, outcome, started_at, finished_at, worker, error, reason FROM dayjob_attempt WHERE id = ? ORDER BY no

-- name: logs
SELECT at, level, message FROM dayjob_log WHERE id = ? ORDER BY no

-- name: count_available
SELECT queue, count(*) FROM dayjob_job INDEXED BY dayjob_job_ready WHERE state = 'available' AND suspect = 0 GROUP BY queue

-- name: count_suspect
SELECT queue, count(*) FROM dayjob_job INDEXED BY dayjob_job_suspect WHERE state = 'available' AND suspect = 1
GROUP BY queue

-- name: count_scheduled
SELECT queue, count(*) FROM dayjob_job INDEXED BY dayjob_job_due WHERE state = 'scheduled' GROUP BY queue

-- name: count_blocked
SELECT queue, count(*) FROM dayjob_job INDEXED BY dayjob_job_parked WHERE line IS NOT NULL AND state = 'blocked'
GROUP BY queue

-- name: count_running
SELECT j.queue, count(*) FROM dayjob_lease AS l CROSS JOIN json_each(l.entries) AS e
CROSS JOIN dayjob_job AS j ON j.entry = e.value WHERE j.state = 'running' AND j.lease = l.no GROUP BY j.queue

-- name: count_history
SELECT queue, state, count(*) FROM dayjob_history INDEXED BY dayjob_history_finished GROUP BY state, queue

-- name: oldest_by_priority
-- ?1 queue  ?2 below this priority: the next lower priority and its oldest place
SELECT priority, max(run_at, created_at) FROM dayjob_job
WHERE queue = ?1 AND state = 'available' AND suspect = 0 AND priority < ?2 ORDER BY priority DESC, place LIMIT 1

-- name: rates
SELECT queue, name, value FROM dayjob_sample WHERE at = ?

-- name: recent_queues
SELECT DISTINCT queue FROM dayjob_sample WHERE at >= ?

-- name: workers
SELECT w.info, w.started_at, w.beat_at, w.id IS (SELECT leader FROM dayjob_cluster),
    (SELECT count(*) FROM dayjob_lease AS l CROSS JOIN json_each(l.entries) AS e
     CROSS JOIN dayjob_job AS j ON j.entry = e.value WHERE l.worker = w.id AND j.state = 'running' AND j.lease = l.no)
FROM dayjob_worker AS w WHERE w.lost_at IS NULL ORDER BY w.name, w.id

-- name: samples
SELECT at, queue, name, value FROM dayjob_sample WHERE at >= ?1 AND (?2 IS NULL OR queue = ?2) ORDER BY at, queue, name

-- == records =====================================================================================================

-- name: read_record
SELECT kind, key, value, version, expires_at FROM dayjob_record
WHERE kind = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)

-- name: write_record
INSERT INTO dayjob_record (kind, key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (kind, key) DO UPDATE SET value = ?3, version = ?4, expires_at = ?5

-- name: list_records
SELECT kind, key, value, version, expires_at FROM dayjob_record
WHERE kind = ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY key

-- name: list_all_records
SELECT kind, key, value, version, expires_at FROM dayjob_record
WHERE expires_at IS NULL OR expires_at > ? ORDER BY kind, key

-- name: tick_record
UPDATE dayjob_record SET value = ?1, version = version + 1 WHERE kind = 'schedule' AND key = ?2 AND version = ?3

-- name: erase_record
DELETE FROM dayjob_record WHERE kind = ?1 AND key = ?2 AND (?3 IS NULL OR version = ?3)

-- == copying =====================================================================================================

-- name: attempts_of
SELECT id, number, round, outcome, started_at, finished_at, worker, error, reason FROM dayjob_attempt
WHERE id IN (SELECT value FROM json_each(?)) ORDER BY no

-- name: logs_of
SELECT id, at, level, message FROM dayjob_log WHERE id IN (SELECT value FROM json_each(?)) ORDER BY no

-- name: checkpoints_of
SELECT id, value FROM dayjob_checkpoint WHERE id IN (SELECT value FROM json_each(?))

-- name: moved_away
SELECT entry, id FROM dayjob_history
WHERE id IN (SELECT value FROM json_each(?)) AND state = 'cancelled' AND reason LIKE 'moved to %://%'

-- name: adopt_live
INSERT INTO dayjob_job (
    entry, place, id, queue, task, state, priority, payload, max_attempts, created_at, run_at, expires_at, tags, meta,
    options, attempt, crashes, round, suspect, recorded, progress, gating, lane, line)
VALUES {rows}

-- name: adopt_finished
INSERT INTO dayjob_history (
    entry, id, queue, task, state, reason, priority, payload, result, error, max_attempts, created_at, run_at, expires_at,
    started_at, finished_at, keep_until, tags, meta, options, attempt, crashes, round, worker, progress, gating)
VALUES {rows}

-- name: adopt_attempt
INSERT INTO dayjob_attempt (id, number, round, outcome, started_at, finished_at, worker, error, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
