-- Keys, lanes, gates, limits of queues: one statement per operation, as in queries.sql. Those of `entering` and `turns`
-- run in callers' transactions, too: their placeholders are bare, each bound once, in order.

-- == entering: enqueue of what has gating, or goes to a queue with limits ========================================

-- name: mark_joined
-- The first write: with it the lock is ours, and reading no longer spoils the transaction. Nothing, if the file is another.
INSERT INTO dayjob_cluster (one, entry, control, live, beat_at, term) VALUES (1, 0, 0, 0, 0, 0)
ON CONFLICT (one) DO UPDATE SET gated = 1
WHERE EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'main' AND file = ?)
RETURNING entry

-- name: mark_gated
UPDATE dayjob_cluster SET gated = 1 WHERE gated = 0

-- name: is_limited
SELECT limited FROM dayjob_cluster

-- name: known
SELECT json_group_array(e.value) FROM json_each(?) AS e WHERE EXISTS (SELECT 1 FROM dayjob_job WHERE id = e.value)
    OR EXISTS (SELECT 1 FROM dayjob_history WHERE id = e.value) OR EXISTS (SELECT 1 FROM dayjob_gone WHERE id = e.value)

-- name: holders
-- JSON array of hashes, now: who holds which
SELECT json_group_array(json_array(k.hash, k.id, j.entry, j.state, j.created_at, j.queue, j.line, j.place, j.gating))
FROM json_each(?) AS e CROSS JOIN dayjob_key AS k ON k.hash = e.value LEFT JOIN dayjob_job AS j ON j.id = k.id
WHERE k.expires IS NULL OR k.expires > ?

-- name: take_keys
-- JSON [[hash, id, until, expires or null], …]: keys that are free
INSERT INTO dayjob_key (hash, id, until, expires)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]')
FROM json_each(?) WHERE true
ON CONFLICT (hash) DO UPDATE SET id = excluded.id, until = excluded.until, expires = excluded.expires

-- name: insert_gated
INSERT INTO dayjob_job (
    entry, place, id, queue, task, state, priority, payload, max_attempts, created_at, run_at, expires_at, tags, meta,
    options, gating, lane, line)
VALUES {rows}

-- name: add_lines
-- JSON [[line, priority, place], …]: blocked jobs came to stand there. A strict lane is looked at again.
INSERT INTO dayjob_line (no, gate, priority, place)
SELECT json_extract(value, '$[0]'), '', json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)
WHERE true
ON CONFLICT (no) DO UPDATE SET gate = iif(no < 0, '', gate), place = iif(excluded.priority > priority
    OR (excluded.priority = priority AND excluded.place < place), excluded.place, place),
    priority = max(excluded.priority, priority)

-- name: add_gates
-- JSON [[gate, tokens, per], …]: what the newest jobs say; returns those of which that is news
INSERT INTO dayjob_gate (gate, tokens, per)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?) WHERE true
ON CONFLICT (gate) DO UPDATE SET tokens = excluded.tokens, per = excluded.per
WHERE tokens <> excluded.tokens OR per <> excluded.per
RETURNING gate

-- name: recall_gates
-- JSON [[gate, tokens, per], …]: gates that were forgotten while their jobs were elsewhere, and perhaps set or shut since
INSERT INTO dayjob_gate (gate, tokens, per)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?) WHERE true
ON CONFLICT (gate) DO UPDATE SET tokens = excluded.tokens, per = excluded.per WHERE tokens = 0

-- name: renew_ends
-- JSON array of gates: starts that are counted end as the rate now says
UPDATE dayjob_token SET ends = at + (
    SELECT coalesce(g.set_per, nullif(g.per, 0), ends - at) FROM dayjob_gate AS g WHERE g.gate = dayjob_token.gate)
WHERE gate IN (SELECT value FROM json_each(?)) AND gate BETWEEN 'r:' AND 'r;' AND ends IS NOT NULL

-- name: look_again
-- JSON array of gates: whoever waits there is looked at
INSERT INTO dayjob_freed (gate)
SELECT value FROM json_each(?) AS e WHERE EXISTS (SELECT 1 FROM dayjob_line WHERE gate = e.value)
ON CONFLICT (gate) DO NOTHING

-- name: replace_holder
UPDATE dayjob_job SET entry = ?, state = ?, place = ?, run_at = ?, payload = ?, priority = ?, expires_at = ?, tags = ?,
    meta = ?, options = ?, gating = ?, lane = ?, line = ?
WHERE entry = ?

-- name: extend_holder
UPDATE dayjob_job SET entry = ?, state = ?, place = ?, run_at = ? WHERE entry = ?

-- name: end_turns
-- JSON [[entry, gate of a strict lane], …]: jobs that left the lane in which they may have their turn
DELETE FROM dayjob_token WHERE (holder, gate) IN (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))

-- name: limits_of
-- JSON array of queues
SELECT json_group_array(json_array(l.queue, json(coalesce(l.run, l.code))))
FROM json_each(?) AS e CROSS JOIN dayjob_limit AS l ON l.queue = e.value

-- name: depth
WITH q (name) AS (VALUES (?))
SELECT (SELECT count(*) FROM dayjob_job INDEXED BY dayjob_job_ready
        WHERE state = 'available' AND suspect = 0 AND queue = q.name)
    + (SELECT count(*) FROM dayjob_job INDEXED BY dayjob_job_suspect
        WHERE state = 'available' AND suspect = 1 AND queue = q.name)
    + (SELECT count(*) FROM dayjob_job INDEXED BY dayjob_job_parked WHERE line IS NOT NULL AND state = 'blocked' AND queue = q.name)
    + (SELECT count(*) FROM dayjob_job INDEXED BY dayjob_job_due WHERE state = 'scheduled' AND queue = q.name)
FROM q

-- name: oldest_waiting
-- The oldest waiting job of the lowest priority of a queue: of those that are available or blocked the first by place, which
-- costs no more the more there are
WITH q (name) AS (VALUES (?)), waits (entry, priority, created_at, place) AS (
    SELECT * FROM (SELECT entry, priority, created_at, place FROM dayjob_job INDEXED BY dayjob_job_ready
    WHERE state = 'available' AND suspect = 0 AND queue = (SELECT name FROM q) AND priority = (
        SELECT priority FROM dayjob_job INDEXED BY dayjob_job_ready
        WHERE state = 'available' AND suspect = 0 AND queue = (SELECT name FROM q) ORDER BY priority LIMIT 1)
    ORDER BY place LIMIT 1)
    UNION ALL
    SELECT entry, priority, created_at, place FROM dayjob_job INDEXED BY dayjob_job_suspect
    WHERE state = 'available' AND suspect = 1 AND queue = (SELECT name FROM q)
    UNION ALL
    SELECT * FROM (SELECT entry, priority, created_at, place FROM dayjob_job INDEXED BY dayjob_job_parked
    WHERE line IS NOT NULL AND state = 'blocked' AND queue = (SELECT name FROM q) AND priority = (
        SELECT priority FROM dayjob_job INDEXED BY dayjob_job_parked
        WHERE line IS NOT NULL AND state = 'blocked' AND queue = (SELECT name FROM q) ORDER BY priority LIMIT 1)
    ORDER BY place LIMIT 1)
    UNION ALL
    SELECT entry, priority, created_at, place FROM dayjob_job INDEXED BY dayjob_job_due
    WHERE state = 'scheduled' AND queue = (SELECT name FROM q))
SELECT entry FROM waits ORDER BY priority, created_at, place LIMIT 1

-- name: shed
-- entry, now, now
INSERT OR REPLACE INTO dayjob_history (
    entry, id, queue, task, state, reason, priority, payload, max_attempts, created_at, run_at, expires_at, finished_at,
    tags, meta, options, attempt, crashes, round, progress, gating)
SELECT entry, id, queue, task, 'dead', 'shed', priority, payload, max_attempts, created_at, run_at, expires_at, ?, tags,
    meta, options, attempt, crashes, round, progress, gating
FROM dayjob_job WHERE entry = ?

-- name: forget_shed
DELETE FROM dayjob_job WHERE entry = ?

-- name: tally_shed
INSERT INTO dayjob_sample (at, queue, name, value) VALUES (?, ?, 'shed', 1)
ON CONFLICT (at, queue, name) DO UPDATE SET value = value + 1

-- == turns: the places of lanes ==================================================================================

-- name: highest
SELECT max((SELECT entry FROM dayjob_cluster), coalesce((SELECT max(entry) FROM dayjob_job), 0),
    coalesce((SELECT max(entry) FROM dayjob_history), 0))

-- name: newcomers
-- The available jobs above an entry, in the order in which they came
SELECT json_group_array(json_array(entry, place, queue, priority, lane, weight)) FROM (
    SELECT entry, place, queue, priority, lane, iif(lane IS NULL, 1, json_extract(gating, '$.weight')) AS weight FROM dayjob_job
    WHERE entry > ? AND state = 'available' AND suspect = 0 ORDER BY place, entry)

-- name: first_places
-- JSON [[queue, priority], …], entry: the first place up to that entry
SELECT json_group_array(json_array(json_extract(e.value, '$[0]'), json_extract(e.value, '$[1]'), (
    SELECT j.place FROM dayjob_job AS j INDEXED BY dayjob_job_ready
    WHERE j.queue = json_extract(e.value, '$[0]') AND j.priority = json_extract(e.value, '$[1]')
        AND j.state = 'available' AND j.suspect = 0 AND j.entry <= b.base ORDER BY j.place LIMIT 1)))
FROM json_each(?) AS e CROSS JOIN (SELECT ? AS base) AS b

-- name: last_places
-- JSON [[queue, priority, lane], …], entry: the last place of the lane up to that entry
SELECT json_group_array(json_array(json_extract(e.value, '$[0]'), json_extract(e.value, '$[1]'),
    json_extract(e.value, '$[2]'), (
    SELECT j.place FROM dayjob_job AS j INDEXED BY dayjob_job_lane
    WHERE j.queue = json_extract(e.value, '$[0]') AND j.priority = json_extract(e.value, '$[1]')
        AND j.lane = json_extract(e.value, '$[2]') AND j.state = 'available' AND j.entry <= b.base
    ORDER BY j.place DESC LIMIT 1)))
FROM json_each(?) AS e CROSS JOIN (SELECT ? AS base) AS b

-- name: set_places
-- JSON [[entry, place], …]
UPDATE dayjob_job SET place = json_extract(e.value, '$[1]')
FROM json_each(?) AS e WHERE dayjob_job.entry = json_extract(e.value, '$[0]')

-- == admission ===================================================================================================

-- name: ended
-- ?1 now: gates of the tokens that `end_tokens` deletes
SELECT json_group_array(DISTINCT gate) FROM (SELECT gate FROM dayjob_token WHERE ends <= ?1 ORDER BY ends LIMIT 5000)

-- name: end_tokens
-- Whoever deletes tokens has their gates looked at (`look_again`).
DELETE FROM dayjob_token WHERE (holder, gate) IN (
    SELECT holder, gate FROM dayjob_token WHERE ends <= ?1 ORDER BY ends LIMIT 5000)

-- name: probe
-- ?1 now: breakers whose time is over are probed
UPDATE dayjob_breaker SET state = 'probing', since = until, until = NULL WHERE state = 'open' AND until <= ?1

-- name: pending
-- ?1 now  ?2 gates  ?3 lines: so many gates and lines [no, priority, place] to be looked at
SELECT (SELECT json_group_array(gate) FROM (
        SELECT gate FROM dayjob_freed UNION SELECT gate FROM dayjob_gate WHERE opens <= ?1 LIMIT ?2)),
    (SELECT json_group_array(json_array(no, priority, place)) FROM (
        SELECT no, priority, place FROM dayjob_line WHERE gate = '' ORDER BY priority DESC, place LIMIT ?3))

-- name: only_many_wait
-- ?1 now  ?2 many: whether no gate is to be looked at, and many lines
SELECT (SELECT count(*) FROM (SELECT 1 FROM dayjob_line WHERE gate = '' LIMIT ?2)) = ?2
    AND NOT EXISTS (SELECT 1 FROM dayjob_freed) AND NOT EXISTS (SELECT 1 FROM dayjob_gate WHERE opens <= ?1)

-- name: nobody_overtakes
-- ?1 entry: whether none of the lines that are to be looked at, of which there are some, comes before that job
SELECT (SELECT l.priority < j.priority OR (l.priority = j.priority AND l.place > j.place)
    FROM dayjob_line AS l WHERE l.gate = '' ORDER BY l.priority DESC, l.place LIMIT 1)
FROM dayjob_job AS j WHERE j.entry = ?1

-- name: more_to_look_at
SELECT EXISTS (SELECT 1 FROM dayjob_line WHERE gate = '')

-- name: next_opening
SELECT opens FROM dayjob_gate WHERE opens IS NOT NULL ORDER BY opens LIMIT 1

-- name: waiting_lines
-- ?1 JSON array of gates  ?2 how many of each  ?3 how many to pass over
SELECT json_group_array(json_array(e.value, l.no, l.priority, l.place))
FROM json_each(?1) AS e CROSS JOIN dayjob_line AS l ON l.no IN (
    SELECT no FROM dayjob_line INDEXED BY dayjob_line_gate WHERE gate = e.value
    ORDER BY priority DESC, place LIMIT ?2 OFFSET ?3)

-- name: heads
-- ?1 JSON array of lines  ?2 how many of each  ?3 how many to pass over: [[line, [[urgency, place, entry, priority], …]], …]
SELECT '[' || coalesce(group_concat('[' || e.value || ',' || (
    SELECT json_group_array(json_array(urgency, place, entry, priority)) FROM (
        SELECT iif(line < 0, 0, -priority) AS urgency, place, entry, priority
        FROM dayjob_job INDEXED BY dayjob_job_blocked WHERE state = 'blocked' AND line = e.value
        ORDER BY iif(line < 0, 0, priority) DESC, place LIMIT ?2 OFFSET ?3)) || ']'), '') || ']'
FROM json_each(?1) AS e

-- name: gatings
-- ?1 JSON array of entries
SELECT json_group_array(json_array(j.line, j.entry, j.queue, j.gating))
FROM json_each(?1) AS e CROSS JOIN dayjob_job AS j ON j.entry = e.value

-- name: comes_back
-- ?1 JSON array of gates of strict lanes: who holds the token and stands there again
SELECT json_group_array(json_array(j.line, j.entry, j.queue, j.gating, j.priority, j.place))
FROM json_each(?1) AS e CROSS JOIN dayjob_token AS t ON t.gate = e.value CROSS JOIN dayjob_job AS j ON j.entry = t.holder
WHERE j.state = 'blocked' AND j.line < 0

-- name: gate_states
-- ?1 JSON array of gates  ?2 now: tokens (null: nobody said), shut, taken, state of the breaker, whether a job said tokens.
-- What has ended was deleted before; if there was more of it than one turn deletes, a gate opens a turn later.
SELECT json_group_array(json_array(e.value, coalesce(g.set_tokens, nullif(g.tokens, 0)), coalesce(g.shut, 0) > ?2,
    iif(b.state IS NULL, (SELECT count(*) FROM dayjob_token AS t WHERE t.gate = e.value),
        (SELECT count(*) FROM dayjob_token AS t WHERE t.gate = e.value AND t.at >= b.since)),
    coalesce(b.state, 'closed'), coalesce(g.tokens, 0) > 0))
FROM json_each(?1) AS e LEFT JOIN dayjob_gate AS g ON g.gate = e.value
LEFT JOIN dayjob_breaker AS b ON e.value BETWEEN 'b:' AND 'b;' AND b.key = substr(e.value, 3)

-- name: release
-- ?1 JSON array of entries
UPDATE dayjob_job SET state = 'available' WHERE entry IN (SELECT value FROM json_each(?1))

-- name: add_tokens
-- ?1 JSON {gate: [entry, …], …}  ?2 now
INSERT INTO dayjob_token (holder, gate, at) SELECT e.value, g.key, ?2 FROM json_each(?1) AS g CROSS JOIN json_each(g.value) AS e

-- name: move_lines
-- ?1 JSON [[line, gate, priority, place], …]
UPDATE dayjob_line SET gate = json_extract(e.value, '$[1]'), priority = json_extract(e.value, '$[2]'),
    place = json_extract(e.value, '$[3]')
FROM json_each(?1) AS e WHERE dayjob_line.no = json_extract(e.value, '$[0]')

-- name: end_lines
DELETE FROM dayjob_line WHERE no IN (SELECT value FROM json_each(?))

-- name: looked_at
DELETE FROM dayjob_freed WHERE gate IN (SELECT value FROM json_each(?))

-- name: set_openings
-- ?1 JSON array of gates  ?2 now: when time lets those through who wait there
UPDATE dayjob_gate SET opens = CASE
    WHEN NOT EXISTS (SELECT 1 FROM dayjob_line AS l WHERE l.gate = dayjob_gate.gate) THEN NULL
    WHEN shut > ?2 THEN shut
    WHEN gate BETWEEN 'b:' AND 'b;' THEN (
        SELECT until FROM dayjob_breaker AS b WHERE b.key = substr(dayjob_gate.gate, 3) AND b.state = 'open')
    ELSE (SELECT t.ends FROM dayjob_token AS t WHERE t.gate = dayjob_gate.gate AND t.ends > ?2 ORDER BY t.ends LIMIT 1) END
WHERE gate IN (SELECT value FROM json_each(?1))

-- name: held_jobs
-- ?1 line  ?2 limit: the first that wait for a closed queue
SELECT json_group_array(json_array(entry, queue, gating)) FROM (
    SELECT entry, queue, gating FROM dayjob_job INDEXED BY dayjob_job_blocked WHERE state = 'blocked' AND line = ?1
    ORDER BY iif(line < 0, 0, priority) DESC, place LIMIT ?2)

-- name: open_held
-- ?1 JSON [[entry, new entry, line or null, lane or null], …]
UPDATE dayjob_job SET entry = json_extract(e.value, '$[1]'), line = json_extract(e.value, '$[2]'), lane = json_extract(e.value, '$[3]'),
    state = iif(json_extract(e.value, '$[2]') IS NULL, 'available', 'blocked')
FROM json_each(?1) AS e WHERE dayjob_job.entry = json_extract(e.value, '$[0]')

-- name: paused_or_closed
SELECT (SELECT json_group_array(queue) FROM dayjob_paused),
    (SELECT json_group_array(queue) FROM dayjob_limit WHERE json_extract(coalesce(run, code), '$.closed') = 'hold')

-- name: to_no_use
-- ?1 the stamp up to which who was admitted has waited long enough  ?2 limit: jobs to be taken back, and whether that is
-- for the time they waited. Somebody else waits at one of their gates.
WITH RECURSIVE g (gate) AS (
    SELECT (SELECT gate FROM dayjob_line WHERE gate > '' ORDER BY gate LIMIT 1)
    UNION ALL
    SELECT (SELECT gate FROM dayjob_line WHERE gate > g.gate ORDER BY gate LIMIT 1) FROM g WHERE g.gate IS NOT NULL)
SELECT json_group_array(json_array(entry, line, priority, place, late)) FROM (
    SELECT j.entry, j.line, j.priority, j.place, t.at <= ?1 AS late
    FROM g CROSS JOIN dayjob_token AS t INDEXED BY dayjob_token_gate ON t.gate = g.gate AND t.ends IS NULL
    CROSS JOIN dayjob_job AS j ON j.entry = t.holder
    WHERE j.state = 'available' AND j.line IS NOT NULL
        AND (EXISTS (SELECT 1 FROM dayjob_line AS l WHERE l.gate = t.gate AND l.priority > j.priority)
            OR (t.at <= ?1 AND EXISTS (SELECT 1 FROM dayjob_line AS l
                WHERE l.gate = t.gate AND (j.line > 0 OR l.no <> j.line)))) LIMIT ?2)

-- name: to_no_use_in_pause
-- ?1 limit: admitted jobs of paused queues, as `to_no_use`. Holders that are jobs are numbers above 0.
SELECT json_group_array(json_array(entry, line, priority, place, 0)) FROM (
    SELECT j.entry, j.line, j.priority, j.place
    FROM dayjob_token AS t CROSS JOIN dayjob_job AS j ON j.entry = t.holder
    WHERE EXISTS (SELECT 1 FROM dayjob_paused) AND t.holder > 0 AND t.holder < 'a'
        AND j.state = 'available' AND j.line IS NOT NULL AND j.queue IN (SELECT queue FROM dayjob_paused) LIMIT ?1)

-- name: take_back
-- ?1 JSON array of entries
UPDATE dayjob_job SET state = 'blocked' WHERE entry IN (SELECT value FROM json_each(?1))

-- name: gates_of
-- ?1 JSON array of holders: gates of the tokens that `drop_tokens` deletes
SELECT json_group_array(DISTINCT t.gate) FROM json_each(?1) AS e CROSS JOIN dayjob_token AS t ON t.holder = e.value
WHERE substr(t.gate, 1, 2) <> 'o:'

-- name: drop_tokens
-- ?1 JSON array of holders
DELETE FROM dayjob_token WHERE holder IN (SELECT value FROM json_each(?1)) AND substr(gate, 1, 2) <> 'o:'

-- name: look_at_lines
-- ?1 JSON [[line, priority, place], …]
INSERT INTO dayjob_line (no, gate, priority, place)
SELECT json_extract(value, '$[0]'), '', json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?1)
WHERE true
ON CONFLICT (no) DO UPDATE SET gate = '', place = iif(excluded.priority > priority
    OR (excluded.priority = priority AND excluded.place < place), excluded.place, place),
    priority = max(excluded.priority, priority)

-- == claim =======================================================================================================

-- name: reserved
-- ?1 JSON array of entries: the rates of which they reserved a start, and whether any key is held until its job starts
SELECT (SELECT json_group_array(DISTINCT t.gate) FROM json_each(?1) AS e
        CROSS JOIN dayjob_token AS t ON t.holder = e.value WHERE t.gate BETWEEN 'r:' AND 'r;'),
    EXISTS (SELECT 1 FROM dayjob_key WHERE until = 'started')

-- name: stamp
-- ?1 JSON array of entries  ?2 now: a rate counts a start, which nobody holds any more
UPDATE dayjob_token SET holder = -holder, at = ?2, ends = ?2 + (
    SELECT coalesce(g.set_per, g.per) FROM dayjob_gate AS g WHERE g.gate = dayjob_token.gate)
WHERE holder IN (SELECT value FROM json_each(?1)) AND gate BETWEEN 'r:' AND 'r;'

-- name: free_started
-- ?1 JSON array of entries: keys that are held until their job starts
DELETE FROM dayjob_key WHERE until = 'started' AND (hash, id) IN (
    SELECT json_extract(j.gating, '$.unique.hash'), j.id FROM json_each(?1) AS e
    CROSS JOIN dayjob_job AS j ON j.entry = e.value WHERE j.gating IS NOT NULL)

-- name: limits_at_claim
SELECT json_group_array(json_array(queue, json_extract(coalesce(run, code), '$.concurrency'),
    json_extract(coalesce(run, code), '$.rate'), coalesce(json_extract(coalesce(run, code), '$.per'), 1.0)))
FROM dayjob_limit
WHERE json_extract(coalesce(run, code), '$.concurrency') IS NOT NULL
    OR json_extract(coalesce(run, code), '$.rate') IS NOT NULL

-- name: running_of
-- ?1 JSON array of queues: how many of each run
SELECT json_group_array(json_array(queue, n)) FROM (
    SELECT j.queue AS queue, count(*) AS n FROM dayjob_lease AS l CROSS JOIN json_each(l.entries) AS e
    CROSS JOIN dayjob_job AS j ON j.entry = e.value
    WHERE j.state = 'running' AND j.lease = l.no AND j.queue IN (SELECT value FROM json_each(?1)) GROUP BY j.queue)

-- name: starts_of
-- ?1 JSON array of gates  ?2 now: how many starts of each count
SELECT json_group_array(json_array(e.value, (
    SELECT count(*) FROM dayjob_token AS t WHERE t.gate = e.value AND t.ends > ?2))) FROM json_each(?1) AS e

-- name: count_starts
-- ?1 JSON array of entries  ?2 now  ?3 JSON {queue: microseconds}
INSERT INTO dayjob_token (holder, gate, at, ends)
SELECT -j.entry, 'w:' || j.queue, ?2, ?2 + p.value
FROM json_each(?1) AS e CROSS JOIN dayjob_job AS j ON j.entry = e.value CROSS JOIN json_each(?3) AS p ON p.key = j.queue

-- name: wait_for_rate
-- ?1 gate  ?2 now: a claim found a queue at its rate
INSERT INTO dayjob_gate (gate, tokens, per, opens) SELECT ?1, 0, 0, min(ends) FROM dayjob_token WHERE gate = ?1 AND ends > ?2
ON CONFLICT (gate) DO UPDATE SET opens = excluded.opens

-- == upkeep ======================================================================================================

-- name: prune_keys
DELETE FROM dayjob_key WHERE hash IN (SELECT hash FROM dayjob_key WHERE expires <= ? ORDER BY expires LIMIT 5000)

-- name: prune_failures
DELETE FROM dayjob_failure WHERE no IN (SELECT no FROM dayjob_failure WHERE ends <= ? ORDER BY ends LIMIT 5000)

-- name: prune_gates
-- ?1 now: gates that nobody uses; a job that comes back to one brings its numbers along
DELETE FROM dayjob_gate WHERE set_tokens IS NULL AND coalesce(shut, 0) <= ?1
    AND NOT EXISTS (SELECT 1 FROM dayjob_token AS t WHERE t.gate = dayjob_gate.gate)
    AND NOT EXISTS (SELECT 1 FROM dayjob_line AS l WHERE l.gate = dayjob_gate.gate)

-- == looking and setting =========================================================================================

-- name: gates_in_use
-- ?1 limit: names of gates of which a token is taken or at which lines wait; two seeks for each
WITH RECURSIVE g (name) AS (
    SELECT '' UNION ALL
    SELECT (SELECT min(gate) FROM (
        SELECT gate FROM (SELECT gate FROM dayjob_token WHERE gate > g.name ORDER BY gate LIMIT 1)
        UNION ALL SELECT gate FROM (SELECT gate FROM dayjob_line WHERE gate > g.name ORDER BY gate LIMIT 1)))
    FROM g WHERE g.name IS NOT NULL)
SELECT json_group_array(name) FROM (
    SELECT name FROM g WHERE substr(name, 1, 2) IN ('b:', 'c:', 'o:', 'r:') LIMIT ?1)

-- name: gate_rows
-- ?1 JSON array of gates  ?2 now: tokens, per, shut, taken, waiting up to 10,000, when those end that end by themselves
SELECT json_group_array(json_array(e.value, coalesce(g.set_tokens, nullif(g.tokens, 0), 1), coalesce(g.set_per, g.per, 0), g.shut,
    (SELECT count(*) FROM dayjob_token AS t WHERE t.gate = e.value AND (t.ends IS NULL OR t.ends > ?2)),
    (SELECT count(*) FROM (
        SELECT 1 FROM dayjob_line AS l INDEXED BY dayjob_line_gate
        CROSS JOIN dayjob_job AS j INDEXED BY dayjob_job_blocked ON j.line = l.no AND j.state = 'blocked'
        WHERE l.gate = e.value LIMIT 10000)),
    (SELECT json_group_array(t.ends) FROM dayjob_token AS t WHERE t.gate = e.value AND t.ends > ?2)))
FROM json_each(?1) AS e LEFT JOIN dayjob_gate AS g ON g.gate = e.value

-- name: set_gate
-- ?1 gate  ?2 tokens  ?3 per
INSERT INTO dayjob_gate (gate, tokens, per, set_tokens, set_per) VALUES (?1, 0, 0, ?2, ?3)
ON CONFLICT (gate) DO UPDATE SET set_tokens = ?2, set_per = ?3

-- name: unset_gate
UPDATE dayjob_gate SET set_tokens = NULL, set_per = NULL WHERE gate = ?

-- name: shut_gate
-- ?1 gate  ?2 until
INSERT INTO dayjob_gate (gate, tokens, per, shut) VALUES (?1, 0, 0, ?2)
ON CONFLICT (gate) DO UPDATE SET shut = max(coalesce(shut, 0), ?2)

-- name: per_of
SELECT coalesce(set_per, per) FROM dayjob_gate WHERE gate = ?

-- name: gates_of_holder
SELECT json_group_array(gate) FROM dayjob_token WHERE holder = ?

-- name: lend_tokens
-- ?1 JSON [[gate, end], …]  ?2 holder  ?3 now
INSERT INTO dayjob_token (holder, gate, at, ends)
SELECT ?2, json_extract(value, '$[0]'), ?3, json_extract(value, '$[1]') FROM json_each(?1)

-- name: prolong
-- ?1 holder  ?2 end
UPDATE dayjob_token SET ends = ?2 WHERE holder = ?1 AND substr(gate, 1, 2) <> 'r:'

-- name: has_tokens
-- A rate's token is there until its time, whatever the holder has.
SELECT EXISTS (SELECT 1 FROM dayjob_token WHERE holder = ? AND substr(gate, 1, 2) <> 'r:' AND ends > ?)

-- name: let_go
-- Starts of a rate go on being counted.
UPDATE dayjob_token SET holder = randomblob(12) WHERE holder = ? AND substr(gate, 1, 2) = 'r:'

-- name: give_back
DELETE FROM dayjob_token WHERE holder = ?

-- name: say_limits
INSERT INTO dayjob_limit (queue, run) VALUES (?1, ?2) ON CONFLICT (queue) DO UPDATE SET run = ?2

-- name: say_limits_in_code
INSERT INTO dayjob_limit (queue, code) VALUES (?1, ?2) ON CONFLICT (queue) DO UPDATE SET code = ?2

-- name: forget_limits
DELETE FROM dayjob_limit WHERE code IS NULL AND run IS NULL

-- name: mark_limited
UPDATE dayjob_cluster SET limited = EXISTS (SELECT 1 FROM dayjob_limit),
    gated = max(gated, EXISTS (SELECT 1 FROM dayjob_limit))

-- name: rate_of_queue
SELECT coalesce(json_extract(coalesce(run, code), '$.per'), 1.0) FROM dayjob_limit WHERE queue = ?

-- name: renew_starts
-- ?1 per  ?2 gate
UPDATE dayjob_token SET ends = at + ?1 WHERE gate = ?2 AND ends IS NOT NULL

-- name: all_limits
SELECT queue, code, run FROM dayjob_limit ORDER BY queue

-- name: admitted_at
-- ?1 gate: available jobs that have a token of it, as `take_back` wants them
SELECT json_group_array(json_array(j.entry, j.line, j.priority, j.place))
FROM dayjob_token AS t CROSS JOIN dayjob_job AS j ON j.entry = t.holder
WHERE t.gate = ?1 AND j.state = 'available' AND j.line IS NOT NULL

-- name: breaker
SELECT state, since, until FROM dayjob_breaker WHERE key = ?

-- name: set_breaker
INSERT INTO dayjob_breaker (key, state, since, until) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE SET state = ?2, since = ?3, until = ?4

-- name: forget_breaker
DELETE FROM dayjob_breaker WHERE key = ?

-- name: recall_breaker
INSERT INTO dayjob_gate (gate, tokens, per) VALUES (?, 1, 0) ON CONFLICT (gate) DO NOTHING

-- name: add_failure
INSERT INTO dayjob_failure (key, at, ends) VALUES (?, ?, ?)

-- name: count_failures
-- ?1 key  ?2 since
SELECT count(*) FROM dayjob_failure WHERE key = ?1 AND at > ?2

-- name: forget_failures
DELETE FROM dayjob_failure WHERE key = ?

-- name: breakers
-- ?1 now  ?2 key, or null for all: state, since, until, failures in the window
WITH k (key) AS (SELECT ?2 WHERE ?2 IS NOT NULL UNION SELECT key FROM dayjob_breaker WHERE ?2 IS NULL
    UNION SELECT key FROM dayjob_failure WHERE ?2 IS NULL AND ends > ?1)
SELECT k.key, coalesce(b.state, 'closed'), coalesce(b.since, (SELECT min(at) FROM dayjob_failure AS f WHERE f.key = k.key), ?1),
    b.until, (SELECT count(*) FROM dayjob_failure AS f WHERE f.key = k.key AND f.ends > ?1)
FROM k LEFT JOIN dayjob_breaker AS b ON b.key = k.key ORDER BY k.key
