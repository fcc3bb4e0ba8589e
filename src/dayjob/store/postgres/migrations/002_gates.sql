-- What a job may have to wait for: keys, lanes, gates, breakers, and the limits of queues. A job without `gating` meets none of
-- it. `gating` is the row that crosses the line, as JSON; with "held" where its queue was closed to it.
ALTER TABLE dayjob.job ADD COLUMN gating jsonb;
ALTER TABLE dayjob.history ADD COLUMN gating jsonb;

-- Kind 3: what has its place by the turn of its lane. Such places repeat, the entry tells them apart; no floor is kept for them.
ALTER TABLE dayjob.ready ADD COLUMN lane text COLLATE "C";
ALTER TABLE dayjob.ready DROP CONSTRAINT ready_pkey, ADD PRIMARY KEY (queue, priority, kind, place, entry);
CREATE INDEX ready_lane ON dayjob.ready (queue, priority, lane, place) WHERE lane IS NOT NULL;

-- Those of a queue that wait for their time, the oldest of the lowest priority first. Its condition is in no statement by accident:
-- who looks for what is due is never led here by a planner that knows nothing yet.
CREATE INDEX job_scheduled ON dayjob.job (queue, priority, created_at, place) WHERE state = 'scheduled' AND queue > '';

-- Who holds which key: the one constraint that lets one in at a time. Whose time is over is overwritten by the next.
CREATE TABLE dayjob.unique_key (
    hash uuid PRIMARY KEY, id uuid NOT NULL, key text NOT NULL, until text COLLATE "C" NOT NULL, frees bigint
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX unique_key_frees ON dayjob.unique_key (frees) WHERE frees IS NOT NULL;
CREATE INDEX unique_key_started ON dayjob.unique_key (id) WHERE until = 'started';

-- A gate as jobs name it, and what was said over their heads (`said`). *opens*: when it is to be looked at again, as lines wait
-- at it; null: nobody does, or it is no matter of time. Gates, lines and admissions are touched only in the turn (`take_turn`).
CREATE TABLE dayjob.gate (
    id uuid PRIMARY KEY, kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, tokens integer NOT NULL,
    per double precision NOT NULL, entry bigint NOT NULL DEFAULT 0, said_tokens integer, said_per double precision,
    shut_until bigint, opens bigint
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX gate_opens ON dayjob.gate (opens) WHERE opens IS NOT NULL;

-- Tokens are rows: (gate, holder), there as long as the holder is, or *until* a time. *no*: the entry that was admitted by it.
-- Kind `queue`: a claim from a queue whose rate is limited.
CREATE TABLE dayjob.token (
    gate uuid NOT NULL, holder text COLLATE "C" NOT NULL, no bigint NOT NULL, kind text COLLATE "C" NOT NULL, at bigint NOT NULL,
    until bigint, PRIMARY KEY (holder, gate, no)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX token_until ON dayjob.token (gate, until);
-- Of tables that are tiny now and large a minute later no plan knows anything. A look at one thing is held to its index by an
-- ORDER BY that this index alone has for nothing, by LIMIT 1 instead of EXISTS, by OFFSET 0 in what is looked up for each row, and by
-- no condition there that another index knows, too.
CREATE INDEX token_over ON dayjob.token (until) WHERE until IS NOT NULL;
CREATE INDEX token_unstamped ON dayjob.token (holder) WHERE kind = 'rate' AND until IS NULL;

-- The blocked jobs, in their lines: jobs with the same gates (and queue) stand in one, those of a strict lane in that lane's, by
-- place alone, and before all who holds its token already.
CREATE TABLE dayjob.waits (
    id uuid PRIMARY KEY, line uuid NOT NULL, rank integer NOT NULL, place bigint NOT NULL, entry bigint NOT NULL,
    priority integer NOT NULL, strict boolean NOT NULL, queue text COLLATE "C" NOT NULL, gates uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX waits_line ON dayjob.waits (line, rank, place, entry);
CREATE INDEX waits_queue ON dayjob.waits (queue, priority, place);

-- A line waits at one closed *gate*, or at none (`no_gate`): it is to be looked at. *priority* and *place* are those of its head.
CREATE TABLE dayjob.line (id uuid PRIMARY KEY, gate uuid NOT NULL, priority integer NOT NULL, place bigint NOT NULL)
    WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX line_gate ON dayjob.line (gate, priority DESC, place);

-- What the next admission has to look at: lines to which a job came, gates of which a token came free. Rows of its own for
-- each transaction, so that no two of them wait for each other; *more*: others of the same kind.
CREATE TABLE dayjob.wake (
    target uuid NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), line boolean NOT NULL, entry bigint, gates jsonb, more uuid[],
    PRIMARY KEY (target, xid, line)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- *fails*: when calls failed of late. *state* is `open` beyond *until*, too, until somebody looks.
CREATE TABLE dayjob.breaker (
    key text COLLATE "C" PRIMARY KEY, state text COLLATE "C" NOT NULL, since bigint NOT NULL, until bigint, fails bigint[] NOT NULL DEFAULT '{}',
    within double precision NOT NULL DEFAULT 60
);

-- What holds for whole queues, as the code says and as was said at run time, which wins.
CREATE TABLE dayjob.queue_limit (
    queue text COLLATE "C" NOT NULL, origin text COLLATE "C" NOT NULL, max_depth integer, when_full text COLLATE "C" NOT NULL,
    concurrency integer, rate integer, per double precision NOT NULL, closed text COLLATE "C", PRIMARY KEY (queue, origin)
);
-- Jobs in queues that drop their oldest for which nobody has gone yet: they came in callers' transactions, or all who had to go
-- were in somebody's hands. `make_room` does it, in the order in which they came (*entry*).
CREATE TABLE dayjob.overfull (
    job uuid PRIMARY KEY, entry bigint NOT NULL, queue text COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
CREATE VIEW dayjob.limit_in_force AS
SELECT DISTINCT ON (l.queue) l.* FROM dayjob.queue_limit AS l ORDER BY l.queue, l.origin DESC;

-- Gates by their ids. The gates `paused` and `held` are queues' own: nobody's row names them, nobody takes a token of them.
CREATE FUNCTION dayjob.gate_id(kind text, key text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT md5(kind || ' ' || key)::uuid $$;

-- Where lines stand that are to be looked at.
CREATE FUNCTION dayjob.no_gate() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT '00000000-0000-0000-0000-000000000000'::uuid $$;

-- Who is first in a line. A part of the statement that calls it, as long as it is STABLE, and no more than one SELECT.
CREATE FUNCTION dayjob.head_of(line uuid) RETURNS SETOF dayjob.waits LANGUAGE sql STABLE ROWS 1
AS $$ SELECT w.* FROM dayjob.waits AS w WHERE w.line = head_of.line ORDER BY w.rank, w.place, w.entry LIMIT 1 $$;

-- What a job with this gating is when it could be claimed but for its gates.
CREATE FUNCTION dayjob.next_state(gating jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN gating ?| '{gates,held}' THEN 'blocked' ELSE 'available' END $$;

-- The key of the strict lane, if there is one.
CREATE FUNCTION dayjob.strict_of(gating jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT min(e.gate ->> 1) FROM jsonb_array_elements(gating -> 'gates') AS e (gate) WHERE e.gate ->> 0 = 'order' $$;

-- What a job with this gating has when it is given lane, weight and gates of another: its key stays what it is, and that it is held.
CREATE FUNCTION dayjob.regated(gating jsonb, other jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT nullif(coalesce((SELECT jsonb_object_agg(k.key, k.value) FROM jsonb_each(gating) AS k WHERE k.key IN ('unique', 'held')), '{}')
        || (coalesce(other, '{}') - '{unique,held}'::text[]), '{}')
$$;

-- The place of a job that comes back, or is given the gating *anew*: the *usual* one, or the one it has in the strict lane in which it stays.
-- One that came for a time ahead has none before that time: till then its place is its entry.
CREATE FUNCTION dayjob.place_of(job dayjob.job, anew jsonb, usual bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN (job.state <> 'scheduled' OR job.place < job.entry) AND dayjob.strict_of(job.gating) = dayjob.strict_of(anew)
        THEN job.place ELSE usual END
$$;

-- True when nobody's open transaction holds the job: who has the turn waits for none.
CREATE FUNCTION dayjob.is_free(job uuid) RETURNS boolean LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM 1 FROM dayjob.job AS j WHERE j.id = job FOR UPDATE SKIP LOCKED;
    RETURN FOUND;
END $$;

-- The next admission looks at these, too: lines, or gates.
CREATE FUNCTION dayjob.wake_up(targets uuid[], lines boolean) RETURNS void LANGUAGE plpgsql STRICT
AS $$
BEGIN
    INSERT INTO dayjob.wake AS w (target, line, more) SELECT targets[1], lines, targets[2:] WHERE cardinality(targets) > 0
    ON CONFLICT (target, xid, line) DO UPDATE SET more = w.more || excluded.more WHERE NOT coalesce(w.more, '{}') @> excluded.more;
END $$;

-- What *jobs* (null for none) hold of gates comes free, and where they end, also their keys: *gatings* of each.
CREATE FUNCTION dayjob.let_go(jobs uuid[], gatings jsonb[], ends boolean) RETURNS void LANGUAGE plpgsql STRICT
AS $$
DECLARE
    freed uuid[];
BEGIN
    WITH gone AS (
        DELETE FROM dayjob.token WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM unnest(jobs) AS j (id) CROSS JOIN LATERAL (
                SELECT t.ctid, t.until, t.kind FROM dayjob.token AS t WHERE t.holder = j.id::text OFFSET 0) AS t
            WHERE t.until IS NULL AND (t.kind <> 'order' OR ends)))
        RETURNING gate
    )
    SELECT array_agg(DISTINCT g.gate) INTO freed FROM gone AS g;
    PERFORM dayjob.wake_up(freed, false);
    IF ends THEN
        DELETE FROM dayjob.unique_key AS u WHERE u.hash = ANY (ARRAY(  -- who holds the row is taking the key over, as its time is up
            SELECT k.hash FROM unnest(jobs, gatings) AS j (id, gating) CROSS JOIN LATERAL (
                SELECT k.hash FROM dayjob.unique_key AS k WHERE k.hash = (j.gating #>> '{unique,hash}')::uuid AND k.id = j.id
                FOR UPDATE SKIP LOCKED) AS k
            WHERE j.gating ? 'unique' AND j.gating #>> '{unique,until}' IS DISTINCT FROM 'expired'));
    END IF;
END $$;

-- A job of this *entry* says how much its gates have.
CREATE FUNCTION dayjob.say_gates(gating jsonb, entry bigint) RETURNS void LANGUAGE sql
AS $$
    INSERT INTO dayjob.wake AS k (target, line, entry, gates)
    SELECT md5(gating ->> 'gates')::uuid, false, say_gates.entry, gating -> 'gates' WHERE gating ? 'gates'
    ON CONFLICT (target, xid, line) DO UPDATE SET entry = excluded.entry, gates = excluded.gates
$$;

-- A job with `gating` came, changed its entry, or goes. Here alone lines are joined and left, tokens and keys come free.
CREATE FUNCTION dayjob.follow_gating() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    strict_key text;
    own boolean;
    joined uuid;
    needed uuid[];
    says boolean;
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.gating ?| '{gates,held}' THEN
        IF OLD.state = 'blocked' THEN
            DELETE FROM dayjob.waits AS w WHERE w.id = OLD.id RETURNING w.line INTO joined;
            IF FOUND THEN  -- the next one may wait at another gate, or be less urgent
                PERFORM dayjob.wake_up(ARRAY[joined], true);
            END IF;
        END IF;
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.gating ? 'gates' THEN
        PERFORM dayjob.let_go(ARRAY[OLD.id], ARRAY[OLD.gating], TG_OP = 'DELETE');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        strict_key := dayjob.strict_of(OLD.gating);
        IF strict_key IS NOT NULL AND strict_key IS DISTINCT FROM dayjob.strict_of(NEW.gating) THEN  -- it leaves the lane in which it may have its turn
            joined := dayjob.gate_id('order', strict_key);
            DELETE FROM dayjob.token AS t WHERE t.holder = OLD.id::text AND t.gate = joined;
            IF FOUND THEN
                PERFORM dayjob.wake_up(ARRAY[joined], false);
            END IF;
        END IF;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;
    -- The newest job says how much a gate has, and not one that only comes back.
    says := CASE WHEN TG_OP = 'INSERT' THEN NEW.round = 0 ELSE (OLD.gating -> 'gates') IS DISTINCT FROM (NEW.gating -> 'gates') END;
    IF NEW.state = 'blocked' THEN
        SELECT array_agg(dayjob.gate_id(e.gate ->> 0, e.gate ->> 1) ORDER BY e.gate ->> 0, e.gate ->> 1),
            min(e.gate ->> 1) FILTER (WHERE e.gate ->> 0 = 'order')
            INTO needed, strict_key FROM jsonb_array_elements(NEW.gating -> 'gates') AS e (gate);
        IF NEW.gating ? 'held' THEN
            needed := needed || dayjob.gate_id('held', NEW.queue);
        END IF;
        IF strict_key IS NULL THEN
            own := false;
            joined := md5(NEW.queue || ' ' || array_to_string(needed, ' '))::uuid;
        ELSE
            joined := dayjob.gate_id('order', strict_key);
            own := EXISTS (SELECT 1 FROM dayjob.token AS t WHERE t.gate = joined AND t.holder = NEW.id::text);
            IF own THEN
                needed := array_remove(needed, joined);
            END IF;
        END IF;
        INSERT INTO dayjob.waits (id, line, rank, place, entry, priority, strict, queue, gates)
        VALUES (NEW.id, joined, CASE WHEN own THEN -1 WHEN strict_key IS NOT NULL THEN 0 ELSE -NEW.priority END, NEW.place, NEW.entry,
            NEW.priority, strict_key IS NOT NULL, NEW.queue, needed);
        INSERT INTO dayjob.wake AS k (target, line, entry, gates)
        VALUES (joined, true, CASE WHEN says THEN NEW.entry END, CASE WHEN says THEN NEW.gating -> 'gates' END)
        ON CONFLICT (target, xid, line) DO UPDATE SET entry = coalesce(excluded.entry, k.entry), gates = coalesce(excluded.gates, k.gates);
    ELSIF says THEN
        PERFORM dayjob.say_gates(NEW.gating, NEW.entry);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER gated_came AFTER INSERT ON dayjob.job FOR EACH ROW
    WHEN (NEW.gating IS NOT NULL AND (NEW.state = 'blocked' OR NEW.gating ? 'gates')) EXECUTE FUNCTION dayjob.follow_gating();
CREATE TRIGGER gated_changed AFTER UPDATE ON dayjob.job FOR EACH ROW
    WHEN (OLD.entry <> NEW.entry AND (OLD.gating ?| '{gates,held}' OR NEW.gating ? 'gates') AND NOT (
        OLD.state = 'blocked' AND NEW.state = 'available' AND (OLD.gating -> 'gates') IS NOT DISTINCT FROM (NEW.gating -> 'gates')))
    EXECUTE FUNCTION dayjob.follow_gating();
-- `finish` says "together", and calls `let_go` for all its jobs at once: one by one it is the dearest part of a completion.
CREATE TRIGGER gated_went AFTER DELETE ON dayjob.job FOR EACH ROW
    WHEN (OLD.gating IS NOT NULL AND current_setting('dayjob' || '.let_go', true) IS DISTINCT FROM 'together')
    EXECUTE FUNCTION dayjob.follow_gating();

-- Jobs with a lane and no gates, in their order, get the places of their turns, and can be claimed. The caller has the turn.
CREATE FUNCTION dayjob.place_lanes(jobs uuid[], moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    WITH new AS MATERIALIZED (
        SELECT o.*, nextval('dayjob.entry') AS no FROM (
            SELECT j.id, j.queue, j.priority, j.suspect, j.gating ->> 'lane' AS lane,
                greatest(100 / coalesce((j.gating ->> 'weight')::integer, 1), 1) AS step
            FROM unnest(jobs) WITH ORDINALITY AS u (id, n) JOIN dayjob.job AS j ON j.id = u.id ORDER BY u.n) AS o
    ), level AS MATERIALIZED (
        SELECT n.queue, n.priority, coalesce((
            SELECT min(f.place) FROM dayjob.level AS l CROSS JOIN LATERAL (
                SELECT r.place FROM dayjob.ready AS r WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind
                    AND r.place >= CASE WHEN l.kind = 0 THEN l.floor ELSE 0 END
                ORDER BY r.place LIMIT 1) AS f
            WHERE l.queue = n.queue AND l.priority = n.priority AND l.kind <> 2), min(n.no)) AS first
        FROM new AS n GROUP BY n.queue, n.priority
    ), turn AS (
        SELECT n.queue, n.priority, n.lane, greatest(v.first, coalesce((
            SELECT r.place FROM dayjob.ready AS r WHERE r.queue = n.queue AND r.priority = n.priority AND r.lane = n.lane
            ORDER BY r.place DESC LIMIT 1) + n.step, v.first)) - n.step AS before
        FROM (SELECT DISTINCT ON (queue, priority, lane) queue, priority, lane, step FROM new ORDER BY queue, priority, lane, no) AS n
        JOIN level AS v ON v.queue = n.queue AND v.priority = n.priority
    ), placed AS MATERIALIZED (
        SELECT n.id, n.no, t.before + sum(n.step) OVER (PARTITION BY n.queue, n.priority, n.lane ORDER BY n.no) AS place
        FROM new AS n JOIN turn AS t ON t.queue = n.queue AND t.priority = n.priority AND t.lane = n.lane
    ), job AS (
        UPDATE dayjob.job AS j SET state = 'available', entry = p.no, place = p.place FROM placed AS p WHERE j.id = p.id
        RETURNING j.id, j.entry, j.place, j.queue, j.priority, CASE WHEN j.suspect THEN 2 ELSE 3 END AS kind, j.gating ->> 'lane' AS lane
    ), known AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, n.kind, moment FROM (SELECT DISTINCT queue, priority, kind FROM job) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    )
    INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue, lane) SELECT place, entry, id, priority, kind, queue, lane FROM job;
END $$;

-- The tokens that each of *gates* has to give, null for one that is not known; 0 of one that is shut, very many of one that
-- lets all through.
CREATE FUNCTION dayjob.free_tokens(gates uuid[], moment bigint) RETURNS bigint[] LANGUAGE sql VOLATILE
AS $$
    SELECT array_agg(CASE
        WHEN q.shut THEN 0 WHEN g.id IS NULL THEN NULL WHEN g.shut_until > moment THEN 0
        WHEN g.kind = 'breaker' AND b.key IS NULL OR b.state = 'closed' THEN 1000000000
        WHEN b.state = 'open' AND (b.until IS NULL OR b.until > moment) THEN 0
        ELSE greatest(CASE WHEN g.kind = 'breaker' THEN 1 ELSE coalesce(g.said_tokens, g.tokens) END - (
            SELECT count(*) FROM (
                SELECT FROM dayjob.token AS t WHERE t.gate = g.id AND (t.until IS NULL OR t.until > moment) ORDER BY t.until OFFSET 0) AS t), 0)
        END ORDER BY u.n)
    FROM unnest(gates) WITH ORDINALITY AS u (id, n)
    LEFT JOIN LATERAL (SELECT g.* FROM dayjob.gate AS g WHERE g.id = u.id OFFSET 0) AS g ON true
    LEFT JOIN LATERAL (SELECT b.* FROM dayjob.breaker AS b WHERE g.kind = 'breaker' AND b.key = g.key OFFSET 0) AS b ON true
    CROSS JOIN LATERAL (SELECT u.id = ANY (ARRAY(
        SELECT dayjob.gate_id('paused', p.queue) FROM dayjob.paused AS p
        UNION ALL SELECT dayjob.gate_id('held', l.queue) FROM dayjob.limit_in_force AS l WHERE l.closed = 'hold')) AS shut) AS q
$$;

-- Gates as *rows* (JSON, as in `gating`) of a job of this *entry* name them; those that are new, or have other numbers now.
CREATE FUNCTION dayjob.know_gates(names jsonb[], entries bigint[]) RETURNS uuid[] LANGUAGE sql VOLATILE
AS $$
    WITH said AS (
        SELECT DISTINCT ON (e.gate ->> 0, e.gate ->> 1) e.gate, u.entry FROM unnest(names, entries) AS u (gates, entry)
        CROSS JOIN LATERAL jsonb_array_elements(u.gates) AS e (gate) ORDER BY e.gate ->> 0, e.gate ->> 1, u.entry DESC
    ), new AS (
        INSERT INTO dayjob.gate AS g (id, kind, key, tokens, per, entry)
        SELECT dayjob.gate_id(s.gate ->> 0, s.gate ->> 1), s.gate ->> 0, s.gate ->> 1, (s.gate ->> 2)::integer,
            (s.gate ->> 3)::double precision, s.entry FROM said AS s
        ON CONFLICT (id) DO UPDATE SET tokens = excluded.tokens, per = excluded.per, entry = excluded.entry
        WHERE g.entry <= excluded.entry AND (g.entry, g.tokens, g.per) IS DISTINCT FROM (greatest(g.entry, 1), excluded.tokens, excluded.per)
        RETURNING g.id
    )
    SELECT array_agg(n.id) FROM new AS n
$$;

-- When each of *gates* is to be looked at again, if lines wait at it.
CREATE FUNCTION dayjob.set_opens(gates uuid[], moment bigint) RETURNS void LANGUAGE sql VOLATILE
AS $$
    UPDATE dayjob.gate AS g SET opens = o.at
    FROM unnest(gates) AS u (id) CROSS JOIN LATERAL (
        SELECT CASE
            WHEN (SELECT true FROM dayjob.line AS l WHERE l.gate = h.id LIMIT 1) IS NULL THEN NULL
            WHEN h.shut_until > moment THEN h.shut_until
            WHEN h.kind = 'breaker' THEN (SELECT b.until FROM dayjob.breaker AS b WHERE b.key = h.key AND b.state = 'open')
            ELSE (
                SELECT t.until FROM dayjob.token AS t WHERE t.gate = h.id AND (t.until IS NULL OR t.until > moment)
                ORDER BY t.until LIMIT 1 OFFSET greatest((
                    SELECT count(*) FROM (
                        SELECT FROM dayjob.token AS c WHERE c.gate = h.id AND (c.until IS NULL OR c.until > moment) ORDER BY c.until OFFSET 0) AS c)
                    - coalesce(h.said_tokens, h.tokens), 0)) END AS at, h.ctid AS address
        FROM dayjob.gate AS h WHERE h.id = u.id OFFSET 0) AS o
    WHERE g.ctid = o.address AND g.opens IS DISTINCT FROM o.at
$$;

-- The gate by which a pause keeps those who wait at *gates*: not those who wait for nothing but that new jobs of their queue are let in.
CREATE FUNCTION dayjob.shut_by_pause(queue text, gates uuid[]) RETURNS uuid[] LANGUAGE sql STABLE
AS $$
    SELECT ARRAY(SELECT dayjob.gate_id('paused', p.queue) FROM dayjob.paused AS p
        WHERE p.queue = shut_by_pause.queue AND gates <> ARRAY[dayjob.gate_id('held', p.queue)])
$$;

-- What is to be looked at since the last look: lines to which somebody came or which somebody left, as they stand now, are put at no
-- gate; answers the gates of which something came free, that have other numbers, or that time opens.
CREATE FUNCTION dayjob.woken(moment bigint) RETURNS uuid[] LANGUAGE plpgsql
AS $$
DECLARE
    changed uuid[];
    freed uuid[];
BEGIN
    WITH k AS (
        DELETE FROM dayjob.wake WHERE ctid = ANY (ARRAY(SELECT k.ctid FROM dayjob.wake AS k ORDER BY k.target, k.xid LIMIT 2000))
        RETURNING target, line, entry, gates, more
    ), w AS (
        SELECT k.target, k.line, k.entry, k.gates FROM k
        UNION ALL SELECT u.target, k.line, NULL, NULL FROM k CROSS JOIN LATERAL unnest(k.more) AS u (target)
    )
    SELECT array_agg(DISTINCT w.target) FILTER (WHERE w.line),
        array_cat(array_agg(DISTINCT w.target) FILTER (WHERE NOT w.line),
            dayjob.know_gates(array_agg(w.gates) FILTER (WHERE w.gates IS NOT NULL), array_agg(w.entry) FILTER (WHERE w.gates IS NOT NULL)))
        INTO changed, freed FROM w;
    WITH due AS (UPDATE dayjob.gate AS g SET opens = NULL WHERE g.opens <= moment RETURNING g.id, g.key, g.kind),
    probed AS (
        UPDATE dayjob.breaker AS b SET state = 'probing', since = moment, until = NULL FROM due
        WHERE due.kind = 'breaker' AND b.key = due.key AND b.state = 'open' AND b.until <= moment
    ), over AS (
        DELETE FROM dayjob.token WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM due CROSS JOIN LATERAL (
                SELECT t.ctid FROM dayjob.token AS t WHERE t.gate = due.id AND t.until <= moment ORDER BY t.until OFFSET 0) AS t))
    )
    SELECT freed || array_agg(due.id) INTO freed FROM due;
    INSERT INTO dayjob.line AS l (id, gate, priority, place)
    SELECT u.id, dayjob.no_gate(), h.priority, h.place FROM unnest(changed) AS u (id) CROSS JOIN LATERAL dayjob.head_of(u.id) AS h
    WHERE h.strict OR (  -- who came to the end of a line that waits somewhere changes nothing
        SELECT true FROM dayjob.line AS l WHERE l.id = u.id AND (l.priority, l.place) = (h.priority, h.place)) IS NULL
    ON CONFLICT (id) DO UPDATE SET gate = excluded.gate, priority = excluded.priority, place = excluded.place;
    DELETE FROM dayjob.line AS l WHERE l.id = ANY (changed) AND (SELECT true FROM dayjob.head_of(l.id)) IS NULL;
    RETURN freed;
END $$;

-- True when all lines that are to be looked at, a good many, come after one of this *priority* and *place*: a look at few costs nothing
-- worth saving.
CREATE FUNCTION dayjob.all_come_after(priority integer, place bigint) RETURNS boolean LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    IF all_come_after.priority IS NULL OR (
        SELECT true FROM dayjob.line AS l WHERE l.gate = dayjob.no_gate() ORDER BY l.priority DESC, l.place LIMIT 1 OFFSET 19) IS NULL THEN
        RETURN false;
    END IF;
    RETURN (SELECT (l.priority, -l.place) < (all_come_after.priority, -all_come_after.place)
        FROM dayjob.line AS l WHERE l.gate = dayjob.no_gate() ORDER BY l.priority DESC, l.place LIMIT 1);
END $$;

-- The first *most* of the *lines*, of each up to *per_line*, where whoever is looked at may pass: one statement, and nobody has to be
-- gone over. None who comes after the first line that is left for the next look (*left_priority*, *left_place*; null: none is left), or
-- after the last one looked at of a line.
CREATE FUNCTION dayjob.pick_all(lines uuid[], per_line integer, most integer, left_priority integer, left_place bigint) RETURNS uuid[] LANGUAGE plpgsql
AS $$
BEGIN
    RETURN ARRAY(
        SELECT h.id FROM (
            SELECT w.*, sum((w.m = per_line)::integer) OVER (
                ORDER BY w.priority DESC, w.place, w.entry ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS lasts
            FROM unnest(lines) AS t (id) CROSS JOIN LATERAL (
                SELECT w.id, w.priority, w.place, w.entry, row_number() OVER (ORDER BY w.rank, w.place, w.entry) AS m
                FROM dayjob.waits AS w WHERE w.line = t.id ORDER BY w.rank, w.place, w.entry LIMIT least(per_line, most)) AS w) AS h
        WHERE coalesce(h.lasts, 0) = 0 AND ((h.priority, -h.place) < (left_priority, -left_place)) IS NOT TRUE
        ORDER BY h.priority DESC, h.place, h.entry LIMIT most);
END $$;

-- As `pick_all`, where tokens are few: *free* ones of the gates *names*. One job after the other takes its own, or stops its line: then
-- *stops* says at which of the gates (0: it goes on), *priorities* and *places* with whom at its head.
CREATE FUNCTION dayjob.pick_by_tokens(
    lines uuid[], per_line integer, most integer, left_priority integer, left_place bigint, names uuid[], free bigint[],
    OUT picked uuid[], OUT stops integer[], OUT priorities integer[], OUT places bigint[]
) LANGUAGE plpgsql
AS $$
DECLARE
    job record;
    number integer;
    shut integer;
BEGIN
    picked := '{}';
    stops := array_fill(0, ARRAY[cardinality(lines)]);
    priorities := stops;
    places := array_fill(0::bigint, ARRAY[cardinality(lines)]);
    FOR job IN
        WITH head AS MATERIALIZED (
            SELECT t.id, t.n::integer AS n, h.strict, g.numbers, g.free
            FROM unnest(lines) WITH ORDINALITY AS t (id, n) CROSS JOIN LATERAL dayjob.head_of(t.id) AS h
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(array_position(names, x.gate)), '{}') AS numbers,
                    coalesce(min(coalesce(free[array_position(names, x.gate)], 1000000000)), 1000000000) AS free
                FROM unnest(h.gates || dayjob.shut_by_pause(h.queue, h.gates)) AS x (gate)) AS g
        )
        SELECT h.n, h.numbers, w.*, w.m = per_line AND NOT h.strict AS last FROM head AS h CROSS JOIN LATERAL (
            SELECT w.id, w.priority, w.place, w.entry, row_number() OVER (ORDER BY w.rank, w.place, w.entry) AS m
            FROM dayjob.waits AS w WHERE w.line = h.id ORDER BY w.rank, w.place, w.entry
            LIMIT CASE WHEN h.strict THEN 1 ELSE greatest(least(h.free, most, per_line), 1) END) AS w
        ORDER BY w.priority DESC, w.place, w.entry
    LOOP
        CONTINUE WHEN stops[job.n] <> 0;
        EXIT WHEN (job.priority, -job.place) < (left_priority, -left_place);
        shut := 0;
        FOREACH number IN ARRAY job.numbers LOOP
            IF free[number] <= 0 THEN
                shut := number;
                EXIT;
            END IF;
        END LOOP;
        IF shut <> 0 THEN
            stops[job.n] := shut;
            priorities[job.n] := job.priority;
            places[job.n] := job.place;
        ELSE
            FOREACH number IN ARRAY job.numbers LOOP
                free[number] := free[number] - 1;
            END LOOP;
            picked := picked || job.id;
        END IF;
        EXIT WHEN cardinality(picked) >= most OR job.last;  -- what comes next in this line is to be seen first
    END LOOP;
END $$;

-- Up to *most* blocked jobs whose gates all have a token for them become available: the most urgent first, then by place. Looks
-- at what woke and at what time opens. The caller has the turn. Who has enough without those that come after one of *last_priority*
-- and *last_place*, if it says so, is spared the look at them.
CREATE FUNCTION dayjob.admit_lines(moment bigint, most integer, last_priority integer DEFAULT NULL, last_place bigint DEFAULT NULL)
RETURNS integer LANGUAGE plpgsql
AS $$
DECLARE
    no_gate CONSTANT uuid := dayjob.no_gate();
    awaited uuid[] := dayjob.woken(moment);
    looked uuid[] := '{}';
    todo uuid[];
    left_priority integer;
    left_place bigint;
    names uuid[];
    wanted integer[];
    any_strict boolean;
    free bigint[];
    per_line integer;
    picked uuid[];
    stops integer[];
    priorities integer[];
    places bigint[];
    passed integer;
    admitted integer := 0;
    rounds integer := 0;
    unseen boolean;
    missed boolean := false;
BEGIN
    LOOP
        -- Tokens are counted where somebody waits for one, not wherever one came free.
        awaited := ARRAY(SELECT u.id FROM unnest(awaited) AS u (id) WHERE (SELECT true FROM dayjob.line AS l WHERE l.gate = u.id LIMIT 1));
        IF rounds = 0 AND cardinality(awaited) = 0 AND dayjob.all_come_after(last_priority, last_place) THEN
            RETURN 0;
        END IF;
        free := dayjob.free_tokens(awaited, moment);
        WITH next AS (
            (SELECT l.* FROM dayjob.line AS l WHERE l.gate = no_gate ORDER BY l.priority DESC, l.place LIMIT most - admitted + 1)
            UNION
            SELECT l.* FROM unnest(awaited, free) AS g (id, free) CROSS JOIN LATERAL (
                SELECT l.* FROM dayjob.line AS l WHERE l.gate = g.id
                ORDER BY l.priority DESC, l.place LIMIT least(most, coalesce(g.free, most))) AS l
        ), first AS (
            SELECT n.id, n.priority, n.place FROM next AS n ORDER BY n.priority DESC, n.place LIMIT most - admitted + 1
        )
        SELECT coalesce(array_agg(f.id ORDER BY f.priority DESC, f.place), '{}'), min(f.priority), max(f.place) FILTER (
            WHERE f.priority = (SELECT min(l.priority) FROM first AS l)) INTO todo, left_priority, left_place FROM first AS f;
        rounds := rounds + 1;
        unseen := cardinality(todo) > 0;
        EXIT WHEN NOT unseen OR admitted >= most OR rounds > 50;
        IF cardinality(todo) > most - admitted THEN  -- nobody passes before the line that is left for the next look
            todo := todo[: most - admitted];
        ELSE
            left_priority := NULL;
        END IF;
        -- The heads of these lines, and the gates that they need.
        SELECT array_agg(x.gate) FILTER (WHERE x.gate IS NOT NULL), array_agg(x.lines) FILTER (WHERE x.gate IS NOT NULL), bool_or(x.strict)
            INTO names, wanted, any_strict FROM (
            SELECT x.gate, count(*)::integer AS lines, bool_or(h.strict) AS strict
            FROM unnest(todo) AS t (id) CROSS JOIN LATERAL dayjob.head_of(t.id) AS h
            LEFT JOIN LATERAL unnest(h.gates || dayjob.shut_by_pause(h.queue, h.gates)) AS x (gate) ON true GROUP BY x.gate) AS x;
        free := dayjob.free_tokens(names, moment);
        IF array_position(free, NULL) IS NOT NULL OR EXISTS (  -- forgotten, as nothing was there for long; and perhaps set or shut since
            SELECT FROM unnest(names) AS u (id) CROSS JOIN LATERAL (
                SELECT g.entry FROM dayjob.gate AS g WHERE g.id = u.id OFFSET 0) AS g WHERE g.entry = 0)
        THEN
            PERFORM dayjob.know_gates(array_agg(j.gating -> 'gates'), array_agg(j.entry))
            FROM unnest(todo) AS t (id) CROSS JOIN LATERAL dayjob.head_of(t.id) AS h
            JOIN dayjob.job AS j ON j.id = h.id WHERE j.gating ? 'gates';
            free := dayjob.free_tokens(names, moment);
        END IF;
        -- Of many lines a few jobs each, in every round more.
        per_line := (10 + (most - admitted) / cardinality(todo)) * 2 ^ least(rounds - 1, 10);
        IF any_strict IS FALSE AND NOT EXISTS (
            SELECT FROM unnest(free, wanted) AS g (free, lines) WHERE g.free IS NOT NULL AND g.free < g.lines * least(per_line, most - admitted)
        ) THEN
            picked := dayjob.pick_all(todo, per_line, most - admitted, left_priority, left_place);
            stops := '{}';
        ELSE
            SELECT p.* INTO picked, stops, priorities, places
            FROM dayjob.pick_by_tokens(todo, per_line, most - admitted, left_priority, left_place, names, free) AS p;
        END IF;
        passed := dayjob.let_in(picked, moment);
        admitted := admitted + passed;
        missed := missed OR passed < cardinality(picked);
        IF cardinality(stops) > 0 THEN
            UPDATE dayjob.line AS l SET gate = names[s.stop], priority = s.priority, place = s.place
            FROM unnest(todo, stops, priorities, places) AS s (id, stop, priority, place)
            WHERE l.id = s.id AND s.stop > 0 AND (l.gate, l.priority, l.place) IS DISTINCT FROM (names[s.stop], s.priority, s.place);
            looked := looked || ARRAY(SELECT DISTINCT names[s.stop] FROM unnest(stops) AS s (stop) WHERE s.stop > 0);
            todo := ARRAY(SELECT s.id FROM unnest(todo, stops) AS s (id, stop) WHERE s.stop = 0);
        END IF;
        DELETE FROM dayjob.line AS l WHERE l.id = ANY (todo) AND (SELECT true FROM dayjob.head_of(l.id)) IS NULL;
        UPDATE dayjob.line AS l SET gate = no_gate, priority = h.priority, place = h.place
        FROM unnest(todo) AS u (id) CROSS JOIN LATERAL dayjob.head_of(u.id) AS h
        WHERE l.id = u.id AND (l.gate, l.priority, l.place) IS DISTINCT FROM (no_gate, h.priority, h.place);
        EXIT WHEN passed = 0 AND cardinality(picked) > 0;  -- all of them are held by somebody
    END LOOP;
    IF unseen THEN
        PERFORM dayjob.wake_up(awaited, false);
    END IF;
    IF missed THEN  -- whom somebody holds has taken no token: who stopped for it is looked at again
        PERFORM dayjob.wake_up(ARRAY(SELECT DISTINCT u.id FROM unnest(looked) AS u (id)), false);
    END IF;
    PERFORM dayjob.set_opens(ARRAY(SELECT u.id FROM unnest(looked || awaited) AS u (id) GROUP BY u.id), moment);
    RETURN admitted;
END $$;

-- *jobs*, in this order, become available, each with a token of all its gates; how many did. Who is held by somebody's open
-- transaction at this moment stays where it is.
CREATE FUNCTION dayjob.let_in(jobs uuid[], moment bigint) RETURNS integer LANGUAGE plpgsql
AS $$
DECLARE
    laned uuid[];
    admitted integer;
BEGIN
    IF cardinality(jobs) = 0 THEN
        RETURN 0;
    END IF;
    WITH here AS MATERIALIZED (
        SELECT u.n, j.address, w.* FROM unnest(jobs) WITH ORDINALITY AS u (id, n) CROSS JOIN LATERAL (
            SELECT j.ctid AS address FROM dayjob.job AS j WHERE j.id = u.id AND j.state = 'blocked' FOR UPDATE SKIP LOCKED) AS j
        CROSS JOIN LATERAL (SELECT w.ctid AS waited, w.gates FROM dayjob.waits AS w WHERE w.id = u.id OFFSET 0) AS w
    ), numbered AS MATERIALIZED (
        SELECT o.*, nextval('dayjob.entry') AS no FROM (SELECT h.* FROM here AS h ORDER BY h.n) AS o
    ), job AS MATERIALIZED (
        UPDATE dayjob.job AS j SET state = 'available', entry = n.no,  -- what was held is not new any more
            gating = CASE WHEN j.gating ? 'held' THEN nullif(j.gating - 'held', '{}') ELSE j.gating END
        FROM numbered AS n WHERE j.ctid = n.address
        RETURNING j.id, j.entry, j.place, j.queue, j.priority, CASE WHEN j.suspect THEN 2 ELSE 1 END AS kind,
            (j.gating ? 'lane' AND NOT j.gating ? 'gates') IS TRUE AS laned, n.waited, n.gates
    ), gone AS (
        DELETE FROM dayjob.waits WHERE ctid = ANY (ARRAY(SELECT j.waited FROM job AS j))
    ), taken AS (
        INSERT INTO dayjob.token (gate, holder, no, kind, at)
        SELECT g.id, j.id::text, j.entry, g.kind, moment FROM job AS j CROSS JOIN LATERAL unnest(j.gates) AS x (gate)
        CROSS JOIN LATERAL (SELECT g.id, g.kind FROM dayjob.gate AS g WHERE g.id = x.gate OFFSET 0) AS g
    ), known AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, n.kind, moment FROM (SELECT DISTINCT queue, priority, kind FROM job) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    ), stored AS (
        INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
        SELECT place, entry, id, priority, kind, queue FROM job WHERE NOT job.laned
    )
    SELECT array_agg(job.id ORDER BY job.entry) FILTER (WHERE job.laned), count(*) INTO laned, admitted FROM job;
    IF laned IS NOT NULL THEN
        PERFORM dayjob.place_lanes(laned, moment);
    END IF;
    RETURN admitted;
END $$;

-- Admitted jobs that nobody claims make room where others wait: those of paused queues, and where the most urgent who waits is
-- more urgent, or they wait themselves for *patience* microseconds. Back in line they stand in a new place. Looks at 500 gates
-- *after* this one, and 10,000 tokens of theirs; answers where to go on, null: at the first.
CREATE FUNCTION dayjob.take_back(moment bigint, patience bigint, after uuid) RETURNS uuid LANGUAGE plpgsql
AS $$
DECLARE
    idle uuid[];
    last uuid;
BEGIN
    WITH RECURSIVE step AS (
        (SELECT l.gate, l.priority FROM dayjob.line AS l WHERE l.gate > after ORDER BY l.gate, l.priority DESC LIMIT 1)
        UNION ALL
        SELECT n.* FROM step AS s CROSS JOIN LATERAL (
            SELECT l.gate, l.priority FROM dayjob.line AS l WHERE l.gate > s.gate ORDER BY l.gate, l.priority DESC LIMIT 1) AS n
    ), waited AS MATERIALIZED (
        SELECT s.gate, s.priority, row_number() OVER () AS n FROM step AS s LIMIT 500
    ), taken AS MATERIALIZED (
        SELECT w.gate, w.priority, w.n, t.* FROM waited AS w CROSS JOIN LATERAL (
            SELECT t.holder, t.no, t.at FROM dayjob.token AS t WHERE t.gate = w.gate AND t.until IS NULL AND t.kind <> 'order'
            ORDER BY t.until LIMIT 1000) AS t
        LIMIT 10000
    ), found AS (
        SELECT DISTINCT j.id FROM taken AS t CROSS JOIN LATERAL (
            SELECT j.id FROM dayjob.job AS j WHERE j.id = t.holder::uuid AND j.entry = t.no AND j.state = 'available'
                AND (t.at <= moment - patience OR j.priority < t.priority)
                AND (SELECT true FROM dayjob.ready AS r WHERE r.queue = j.queue AND r.priority = j.priority AND r.kind IN (1, 2)
                    AND r.place = j.place AND r.entry = j.entry LIMIT 1)
            OFFSET 0) AS j
        LIMIT 1000
    )
    SELECT ARRAY(SELECT f.id FROM found AS f), CASE
        WHEN (SELECT count(*) FROM taken) = 10000 THEN (SELECT t.gate FROM taken AS t ORDER BY t.n DESC LIMIT 1)
        ELSE (SELECT w.gate FROM waited AS w WHERE w.n = 500) END
        INTO idle, last;
    idle := idle || ARRAY(
        SELECT j.id FROM dayjob.paused AS p CROSS JOIN LATERAL (
            SELECT l.* FROM dayjob.level AS l WHERE l.queue = p.queue AND l.kind IN (1, 2) OFFSET 0) AS l
        CROSS JOIN LATERAL (
            SELECT r.id, r.entry FROM dayjob.ready AS r WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind
            OFFSET 0) AS r
        CROSS JOIN LATERAL (
            SELECT j.id FROM dayjob.job AS j WHERE j.id = r.id AND j.entry = r.entry AND j.gating ? 'gates'
                AND (SELECT true FROM dayjob.token AS t WHERE t.holder = j.id::text AND t.until IS NULL LIMIT 1)
            OFFSET 0) AS j
        LIMIT 1000);
    IF cardinality(idle) > 0 THEN
        PERFORM dayjob.park(idle, true);
    END IF;
    RETURN last;
END $$;

-- Admitted *jobs* that are not claimed are blocked again; *behind*: in a new place.
CREATE FUNCTION dayjob.park(jobs uuid[], behind boolean) RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    WITH here AS MATERIALIZED (
        SELECT j.id, j.queue, j.priority, j.place, j.entry, nextval('dayjob.entry') AS no FROM (
            SELECT j.* FROM dayjob.job AS j WHERE j.id = ANY (jobs) AND j.state = 'available' ORDER BY j.id FOR UPDATE SKIP LOCKED) AS j
    ), gone AS (
        DELETE FROM dayjob.ready AS r USING here AS h WHERE r.queue = h.queue AND r.priority = h.priority AND r.kind IN (1, 2)
            AND r.place = h.place AND r.entry = h.entry RETURNING h.id, h.no
    )
    UPDATE dayjob.job AS j SET state = 'blocked', entry = g.no, place = CASE WHEN behind THEN g.no ELSE j.place END
    FROM gone AS g WHERE j.id = g.id;
END $$;

-- Up to *most*, the waiting jobs of *queue*, of whatever kind.
CREATE FUNCTION dayjob.depth_of(queue text, most bigint) RETURNS bigint LANGUAGE sql STABLE
AS $$
    SELECT (SELECT count(*) FROM (SELECT 1 FROM dayjob.ready AS r WHERE r.queue = depth_of.queue LIMIT most) AS r)
        + (SELECT count(*) FROM (SELECT 1 FROM dayjob.job AS j WHERE j.state = 'scheduled' AND j.queue = depth_of.queue AND j.queue > '' LIMIT most) AS j)
        + (SELECT count(*) FROM (SELECT 1 FROM dayjob.waits AS w WHERE w.queue = depth_of.queue LIMIT most) AS w)
        + (SELECT count(*) FROM dayjob.arrival AS a CROSS JOIN LATERAL (
            SELECT 1 FROM dayjob.job AS j WHERE j.id = a.id AND j.entry = a.entry AND j.state = 'available' AND j.queue = depth_of.queue
            OFFSET 0) AS j)
$$;

-- Room for *newcomer*: of all that wait in *queue* but those that came *later*, the oldest of the lowest priority is dead. What somebody's
-- open transaction changes is passed by, a thousand at most. When that leaves nobody, or takes one for whom nobody had gone
-- himself, the room is owed (`overfull`). The caller has the turn.
CREATE FUNCTION dayjob.shed_oldest(queue text, newcomer uuid, later uuid[], moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    most integer := 10;
    seen integer;
    oldest uuid;
    old dayjob.job;
    owed boolean := true;
BEGIN
    <<search>> LOOP
        seen := 0;
        FOR oldest IN
            SELECT w.id FROM (
                SELECT r.id FROM dayjob.level AS l CROSS JOIN LATERAL (
                    SELECT r.id FROM dayjob.ready AS r WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind
                        AND r.place >= CASE WHEN l.kind = 0 THEN l.floor ELSE 0 END AND r.id <> ALL (later)
                    ORDER BY r.place, r.entry LIMIT most) AS r
                WHERE l.queue = queue
                UNION ALL (SELECT w.id FROM dayjob.waits AS w WHERE w.queue = queue AND w.id <> ALL (later) ORDER BY w.priority, w.place LIMIT most)
                UNION ALL (SELECT j.id FROM dayjob.job AS j WHERE j.state = 'scheduled' AND j.queue = queue AND j.queue > '' AND j.id <> ALL (later)
                    ORDER BY j.priority, j.created_at, j.place LIMIT most)
            ) AS w CROSS JOIN LATERAL (
                SELECT j.priority, j.created_at, j.place, j.entry FROM dayjob.job AS j WHERE j.id = w.id OFFSET 0) AS j
            ORDER BY j.priority, j.created_at, j.place, j.entry LIMIT most
        LOOP
            EXIT search WHEN dayjob.is_free(oldest);
            seen := seen + 1;
            oldest := NULL;
        END LOOP;
        EXIT WHEN seen < most OR most >= 1000;
        most := most * 10;
    END LOOP;
    IF oldest IS NOT NULL THEN
        DELETE FROM dayjob.job AS j WHERE j.id = oldest RETURNING * INTO old;
        DELETE FROM dayjob.ready AS r WHERE r.queue = old.queue AND r.priority = old.priority AND r.kind IN (0, 1, 2, 3)
            AND r.place = old.place AND r.entry = old.entry;
        INSERT INTO dayjob.history (id, entry, created_at, run_at, expires_at, finished_at, goes, priority, max_attempts, attempt, crashes,
            round, recorded, state, queue, task, payload, tags, meta, options, reason, progress, gating)
        VALUES (old.id, old.entry, old.created_at, old.run_at, old.expires_at, moment, 'infinity', old.priority, old.max_attempts,
            old.attempt, old.crashes, old.round, old.recorded, 'dead', old.queue, old.task, old.payload, old.tags, old.meta, old.options,
            'shed', old.progress, old.gating);
        INSERT INTO dayjob.total (goes, queue, state, jobs) VALUES ('infinity', old.queue, 'dead', 1);
        INSERT INTO dayjob.sample AS s (at, queue, name, value) VALUES (moment - moment % 60000000, old.queue, 'shed', 1)
        ON CONFLICT ON CONSTRAINT sample_pkey DO UPDATE SET value = s.value + 1;
        DELETE FROM dayjob.overfull AS o WHERE o.job = oldest;
        owed := FOUND;
    END IF;
    IF owed THEN
        INSERT INTO dayjob.overfull (job, entry, queue) VALUES (newcomer, nextval('dayjob.entry'), queue)
        ON CONFLICT ON CONSTRAINT overfull_pkey DO UPDATE SET entry = excluded.entry, queue = excluded.queue;
    END IF;
END $$;

-- Room for those for which nobody has gone yet, in *queues* (null: in all): for each as if those after it had not come. The caller
-- has the turn, and has admitted what came.
CREATE FUNCTION dayjob.make_room(queues text[], moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    owing record;
    jobs uuid[];
BEGIN
    FOR owing IN
        WITH came AS (DELETE FROM dayjob.overfull AS o WHERE queues IS NULL OR o.queue = ANY (queues) RETURNING o.job, o.entry, o.queue)
        SELECT l.queue, l.max_depth, c.jobs FROM (
            SELECT c.queue, array_agg(c.job ORDER BY c.entry) AS jobs
            FROM came AS c CROSS JOIN LATERAL (SELECT FROM dayjob.job AS j WHERE j.id = c.job OFFSET 0) AS here GROUP BY c.queue) AS c
        JOIN dayjob.limit_in_force AS l ON l.queue = c.queue WHERE l.when_full = 'drop_oldest' AND l.max_depth IS NOT NULL
    LOOP
        jobs := owing.jobs[greatest(1 + cardinality(owing.jobs)
            - (dayjob.depth_of(owing.queue, owing.max_depth + cardinality(owing.jobs)) - owing.max_depth), 1) :];
        WHILE cardinality(jobs) > 0 LOOP
            PERFORM dayjob.shed_oldest(owing.queue, jobs[1], jobs, moment);
            jobs := jobs[2:];
        END LOOP;
    END LOOP;
END $$;

-- A waiting *holder* of a key gets a new time, and if *whole* the rest of *fresh* (a `NewRow`), too; false when it runs, ended, or
-- has the key no more: then nothing was changed.
-- A claim that goes on meanwhile does not wait for us: see `nobody(20)` there. *own*: this transaction is short.
CREATE FUNCTION dayjob.put_off(holder uuid, fresh jsonb, whole boolean, no bigint, moment bigint, own boolean) RETURNS boolean LANGUAGE plpgsql
AS $$
DECLARE
    old dayjob.job;
    new dayjob.job;
    due bigint := coalesce((fresh ->> 'run_at')::bigint, moment + ((fresh ->> 'delay')::double precision * 1000000)::bigint, moment);
    latest double precision := (fresh #>> '{gating,unique,latest}')::double precision;
    anew jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('dayjob'), 20);
    SELECT j.* INTO old FROM dayjob.job AS j WHERE j.id = holder FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM 1 FROM dayjob.unique_key AS u WHERE u.hash = (fresh #>> '{gating,unique,hash}')::uuid AND u.id = holder;
    IF NOT FOUND THEN  -- it started, and came back
        RETURN false;
    END IF;
    IF old.state = 'available' THEN
        DELETE FROM dayjob.ready AS r WHERE r.queue = old.queue AND r.priority = old.priority AND r.kind IN (0, 1, 2, 3)
            AND r.place = old.place AND r.entry = old.entry;
        IF NOT FOUND THEN
            DELETE FROM dayjob.arrival AS a WHERE a.id = holder AND a.entry = old.entry;
            IF NOT FOUND THEN  -- it runs
                RETURN false;
            END IF;
        END IF;
    END IF;
    due := least(due, old.created_at + (latest * 1000000)::bigint);
    anew := CASE WHEN whole THEN dayjob.regated(old.gating, fresh -> 'gating') ELSE old.gating END;
    UPDATE dayjob.job AS j SET entry = no, run_at = due, gating = anew,
        state = CASE WHEN due > moment THEN 'scheduled' ELSE dayjob.next_state(anew) END,
        place = dayjob.place_of(old, anew, CASE WHEN old.state = 'scheduled' OR due > moment OR whole AND (
            (fresh ->> 'priority')::integer <> j.priority OR anew IS DISTINCT FROM old.gating) THEN no ELSE j.place END),
        priority = CASE WHEN whole THEN (fresh ->> 'priority')::integer ELSE j.priority END,
        payload = CASE WHEN whole THEN decode(fresh ->> 'payload', 'base64') ELSE j.payload END,
        expires_at = CASE WHEN whole THEN moment + ((fresh ->> 'expires')::double precision * 1000000)::bigint ELSE j.expires_at END,
        tags = CASE WHEN whole THEN fresh ->> 'tags' ELSE j.tags END, meta = CASE WHEN whole THEN fresh ->> 'meta' ELSE j.meta END,
        options = CASE WHEN whole THEN decode(fresh ->> 'options', 'base64') ELSE j.options END
    WHERE j.id = holder RETURNING j.* INTO new;
    IF whole AND (old.gating -> 'gates') IS NOT DISTINCT FROM (anew -> 'gates') THEN  -- else `follow_gating` has said it
        PERFORM dayjob.say_gates(anew, no);
    END IF;
    IF NOT own THEN
        INSERT INTO dayjob.arrival (entry, id) VALUES (no, holder);
    ELSIF new.state = 'available' AND new.place = no AND new.gating ? 'lane' THEN
        PERFORM dayjob.place_lanes(ARRAY[holder], moment);
    ELSIF new.state = 'available' THEN
        PERFORM dayjob.make_ready(holder, CASE WHEN new.suspect THEN 2 ELSE 1 END, moment);
    END IF;
    RETURN true;
END $$;

-- An available job can be claimed from now on.
CREATE FUNCTION dayjob.make_ready(job uuid, kind integer, moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
BEGIN
    WITH j AS (
        INSERT INTO dayjob.ready AS r (place, entry, id, priority, kind, queue)
        SELECT j.place, j.entry, j.id, j.priority, kind, j.queue FROM dayjob.job AS j WHERE j.id = job RETURNING r.queue, r.priority
    )
    INSERT INTO dayjob.level (queue, priority, kind, used_at) SELECT j.queue, j.priority, make_ready.kind, moment FROM j
    WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = j.queue AND k.priority = j.priority AND k.kind = make_ready.kind
        AND k.used_at > moment - 3600000000)
    ON CONFLICT ON CONSTRAINT level_pkey DO UPDATE SET used_at = excluded.used_at;
END $$;

-- The key of *gating* for a job; the holder where another has it. Waits for whoever takes it just now.
CREATE FUNCTION dayjob.take_key(gating jsonb, job uuid, moment bigint) RETURNS uuid LANGUAGE plpgsql
AS $$
DECLARE
    name CONSTANT uuid := (gating #>> '{unique,hash}')::uuid;
    holder uuid;
BEGIN
    LOOP
        SELECT u.id INTO holder FROM dayjob.unique_key AS u WHERE u.hash = name AND (u.frees IS NULL OR u.frees > moment);
        IF FOUND THEN
            RETURN nullif(holder, job);
        END IF;
        DELETE FROM dayjob.unique_key AS u WHERE u.hash = name AND u.frees <= moment;
        INSERT INTO dayjob.unique_key (hash, id, key, until, frees) VALUES (name, job, gating #>> '{unique,key}',
            coalesce(gating #>> '{unique,until}', 'done'), moment + ((gating #>> '{unique,ttl}')::double precision * 1000000)::bigint)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
    END LOOP;
END $$;

-- Rows with a gating, or for queues that have a limit, one by one, the keys in order: *picked* are their numbers among *rows*,
-- *entries* those that they were given.
CREATE FUNCTION dayjob.store_careful(
    rows jsonb, picked integer[], entries bigint[], moment bigint, repeat boolean, own boolean, patience text
) RETURNS TABLE (number integer, outcome text, job uuid, detail text) LANGUAGE plpgsql SET lock_timeout = '1s'
AS $$
DECLARE
    one record;
    bound record;
    holder uuid;
    policy text;
    looks integer;
    due bigint;
    gating jsonb;
    rooms jsonb := '{}';
    crowded text[];
    laned uuid[] := '{}';
BEGIN
    PERFORM set_config('lock_timeout', patience, true);
    IF own THEN
        SELECT coalesce(jsonb_object_agg(q.queue, q.room), '{}'), array_agg(q.queue) FILTER (WHERE q.jobs > q.room) INTO rooms, crowded FROM (
            SELECT l.queue, l.max_depth - dayjob.depth_of(l.queue, l.max_depth + 1) AS room, count(*) AS jobs
            FROM unnest(picked) AS p (n) JOIN dayjob.limit_in_force AS l ON l.queue = rows -> (p.n - 1) ->> 'queue'
            WHERE l.max_depth IS NOT NULL AND l.when_full = 'drop_oldest' GROUP BY l.queue, l.max_depth) AS q;
        IF crowded IS NOT NULL THEN  -- the turn before any key: who has it may wait for one
            rooms := '{}';
            PERFORM dayjob.take_turn();
            PERFORM dayjob.admit_arrivals(NULL, moment);
            PERFORM dayjob.make_room(crowded, moment);
        END IF;
    END IF;
    IF cardinality(picked) > 1 THEN  -- keys in their order, so that no two producers wait for each other; then the rows in theirs
        PERFORM dayjob.take_key(k.gating, k.id, moment) FROM (
            SELECT (e.value ->> 'id')::uuid AS id, e.value -> 'gating' AS gating
            FROM unnest(picked) AS p (n) CROSS JOIN LATERAL (SELECT rows -> (p.n - 1) AS value OFFSET 0) AS e
            WHERE e.value -> 'gating' ? 'unique' AND NOT EXISTS (SELECT 1 FROM dayjob.job AS j WHERE j.id = (e.value ->> 'id')::uuid)
                AND NOT (repeat AND coalesce((SELECT true FROM dayjob.history AS h WHERE h.id = (e.value ->> 'id')::uuid LIMIT 1),
                    (SELECT true FROM dayjob.gone AS g WHERE g.id = (e.value ->> 'id')::uuid LIMIT 1), false))
            ORDER BY e.value #>> '{gating,unique,hash}', p.n) AS k;
    END IF;
    FOR one IN
        SELECT p.n, p.no, e.value, (e.value ->> 'id')::uuid AS id, e.value ->> 'queue' AS queue, e.value -> 'gating' AS gating
        FROM unnest(picked, entries) AS p (n, no) CROSS JOIN LATERAL (SELECT rows -> (p.n - 1) AS value OFFSET 0) AS e
        ORDER BY p.n
    LOOP
        number := one.n;
        job := NULL;
        detail := NULL;
        outcome := 'existing';
        gating := CASE WHEN jsonb_typeof(one.gating) = 'object' THEN one.gating END;
        IF EXISTS (SELECT 1 FROM dayjob.job AS j WHERE j.id = one.id) OR repeat AND coalesce(
            (SELECT true FROM dayjob.history AS h WHERE h.id = one.id LIMIT 1), (SELECT true FROM dayjob.gone AS g WHERE g.id = one.id LIMIT 1)) THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        SELECT l.* INTO bound FROM dayjob.limit_in_force AS l WHERE l.queue = one.queue;
        IF bound.closed = 'refuse' THEN
            DELETE FROM dayjob.unique_key AS u WHERE u.hash = (gating #>> '{unique,hash}')::uuid AND u.id = one.id;
            outcome := 'closed';
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF gating ? 'unique' THEN
            policy := coalesce(gating #>> '{unique,on_conflict}', 'existing');
            looks := 0;
            LOOP
                holder := dayjob.take_key(gating, one.id, moment);
                EXIT WHEN holder IS NULL;
                IF policy = 'raise' THEN
                    outcome := 'held';
                    EXIT;
                END IF;
                EXIT WHEN policy NOT IN ('replace', 'extend');
                IF dayjob.put_off(holder, one.value, policy = 'replace', one.no, moment, own) THEN
                    outcome := CASE policy WHEN 'replace' THEN 'replaced' ELSE 'extended' END;
                    EXIT;
                END IF;
                -- It runs or has ended. Its key stays with it, or came free since it was looked at.
                EXIT WHEN EXISTS (SELECT 1 FROM dayjob.unique_key AS u WHERE u.hash = (gating #>> '{unique,hash}')::uuid AND u.id = holder);
                looks := looks + 1;
                IF looks >= 10 THEN
                    RAISE lock_not_available USING MESSAGE = format('the key %s goes from job to job', gating #>> '{unique,key}');
                END IF;
            END LOOP;
            IF holder IS NOT NULL THEN
                job := holder;
                detail := gating #>> '{unique,key}';
            END IF;
            IF holder IS NOT NULL OR EXISTS (SELECT 1 FROM dayjob.job AS j WHERE j.id = one.id) THEN  -- stored while its key was waited for
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF bound.max_depth IS NOT NULL AND (own OR bound.when_full <> 'drop_oldest') THEN
            IF NOT rooms ? one.queue THEN
                rooms := rooms || jsonb_build_object(one.queue, bound.max_depth - dayjob.depth_of(one.queue, bound.max_depth + 1));
            END IF;
            IF (rooms ->> one.queue)::bigint > 0 THEN
                rooms := rooms || jsonb_build_object(one.queue, (rooms ->> one.queue)::bigint - 1);
            ELSIF bound.when_full = 'drop_oldest' THEN
                IF cardinality(laned) > 0 THEN
                    PERFORM dayjob.place_lanes(laned, moment);
                    laned := '{}';
                END IF;
                PERFORM dayjob.shed_oldest(one.queue, one.id, '{}', moment);
            ELSE
                IF gating ? 'unique' THEN
                    DELETE FROM dayjob.unique_key AS u WHERE u.hash = (gating #>> '{unique,hash}')::uuid AND u.id = one.id;
                END IF;
                outcome := 'full';
                detail := (bound.max_depth - (rooms ->> one.queue)::bigint) || ' ' || bound.max_depth;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF bound.closed = 'hold' THEN
            gating := coalesce(gating, '{}') || '{"held": true}';
        END IF;
        due := coalesce((one.value ->> 'run_at')::bigint, moment + ((one.value ->> 'delay')::double precision * 1000000)::bigint, moment);
        INSERT INTO dayjob.job (id, entry, place, created_at, run_at, expires_at, priority, max_attempts, state, queue, task,
            payload, tags, meta, options, gating)
        VALUES (one.id, one.no, one.no, moment, due, moment + ((one.value ->> 'expires')::double precision * 1000000)::bigint,
            coalesce((one.value ->> 'priority')::integer, 0), (one.value ->> 'max_attempts')::integer,
            CASE WHEN due > moment THEN 'scheduled' ELSE dayjob.next_state(gating) END, one.queue, one.value ->> 'task',
            decode(one.value ->> 'payload', 'base64'), one.value ->> 'tags', one.value ->> 'meta',
            decode(one.value ->> 'options', 'base64'), gating)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN  -- somebody stored it just now
            DELETE FROM dayjob.unique_key AS u WHERE u.hash = (gating #>> '{unique,hash}')::uuid AND u.id = one.id;
            RETURN NEXT;
            CONTINUE;
        END IF;
        outcome := 'inserted';
        IF NOT own AND bound.max_depth IS NOT NULL AND bound.when_full = 'drop_oldest' THEN
            INSERT INTO dayjob.overfull (job, entry, queue) VALUES (one.id, one.no, one.queue)
            ON CONFLICT ON CONSTRAINT overfull_pkey DO UPDATE SET entry = excluded.entry, queue = excluded.queue;
        END IF;
        IF due > moment OR dayjob.next_state(gating) = 'available' THEN
            IF NOT own THEN
                INSERT INTO dayjob.arrival (entry, id) VALUES (one.no, one.id);
            ELSIF due <= moment AND gating ? 'lane' THEN
                laned := laned || one.id;
            ELSIF due <= moment THEN
                PERFORM dayjob.make_ready(one.id, 0, moment);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF cardinality(laned) > 0 THEN
        PERFORM dayjob.place_lanes(ARRAY(
            SELECT j.id FROM unnest(laned) AS u (id) JOIN dayjob.job AS j ON j.id = u.id ORDER BY j.entry), moment);
    END IF;
END $$;

-- As `store_careful`; a row whose key or id somebody's open transaction takes is refused after a second, the others are stored.
CREATE FUNCTION dayjob.store_each(rows jsonb, picked integer[], entries bigint[], moment bigint, repeat boolean, own boolean)
    RETURNS TABLE (number integer, outcome text, job uuid, detail text) LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
BEGIN
    BEGIN
        RETURN QUERY SELECT c.* FROM dayjob.store_careful(rows, picked, entries, moment, repeat, own, '1s') AS c;
        RETURN;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;
    FOR n IN 1 .. cardinality(picked) LOOP
        BEGIN
            RETURN QUERY SELECT c.* FROM dayjob.store_careful(rows, picked[n : n], entries[n : n], moment, repeat, own, '20ms') AS c;
        EXCEPTION WHEN lock_not_available THEN
            number := picked[n];
            outcome := 'busy';
            RETURN NEXT;
        END;
    END LOOP;
END $$;

-- As `enqueue_rows`, for rows that may have a gating, and told in full what became of each: `existing`, `replaced`, `extended` and
-- `held` with the *job* that has the key, `full` with depth and limit, `closed`, `busy`. *own*: a transaction of dayjob's own, in which
-- jobs get their places at once, and who calls wakes the workers.
CREATE FUNCTION dayjob.accept_rows(
    rows jsonb, at bigint DEFAULT NULL, home text DEFAULT NULL, repeat boolean DEFAULT true, own boolean DEFAULT false
) RETURNS TABLE (number integer, outcome text, job uuid, detail text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    name CONSTANT text COLLATE "C" := '^[A-Za-z0-9_][A-Za-z0-9_.:-]*$';  -- with {0,199} a match takes 30 microseconds
    names CONSTANT text := 'use up to 200 of A-Z a-z 0-9 _ . : - and begin with a letter, a digit or _';
    moment bigint := coalesce(at, dayjob.clock());
    wrong text[];
    limited text[] := ARRAY(SELECT l.queue FROM dayjob.limit_in_force AS l WHERE l.max_depth IS NOT NULL OR l.closed IS NOT NULL);
    picked integer[];
    entries bigint[];
    stored uuid[];
    laned uuid[];
    known uuid[];
BEGIN
    PERFORM dayjob.require_home(home);
    IF own THEN
        LOCK TABLE dayjob.ready IN ROW EXCLUSIVE MODE;  -- before places are taken: see `ready`
    END IF;
    IF (own OR at IS NOT NULL) AND NOT has_table_privilege(session_user, 'dayjob.job', 'INSERT') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the time is the store''s to say';
    END IF;
    WITH s AS (
        SELECT s.*, nextval('dayjob.entry') AS n, coalesce(s.gating ? 'unique', false) OR s.queue = ANY (limited) AS careful,
            CASE WHEN jsonb_typeof(s.gating) = 'object' THEN s.gating END AS waits,
            coalesce(s.run_at, moment + (s.delay * 1000000)::bigint, moment) AS due
        FROM ROWS FROM (jsonb_to_recordset(rows) AS (id uuid, queue text, task text, payload text, priority integer,
            delay double precision, run_at bigint, expires double precision, max_attempts integer, tags text, meta text,
            options text, gating jsonb)) WITH ORDINALITY AS s (id, queue, task, payload, priority, delay, run_at, expires,
            max_attempts, tags, meta, options, gating, o)
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
            task, payload, tags, meta, options, gating)
        SELECT s.id, s.n, s.n, moment, s.due, moment + (s.expires * 1000000)::bigint, coalesce(s.priority, 0), s.max_attempts,
            CASE WHEN s.due > moment THEN 'scheduled' ELSE dayjob.next_state(s.waits) END, s.queue, s.task, decode(s.payload, 'base64'),
            s.tags, s.meta, decode(s.options, 'base64'), s.waits
        FROM s WHERE (SELECT flaw.problem IS NULL FROM flaw) AND s.careful IS NOT TRUE
        ON CONFLICT (id) DO NOTHING RETURNING j.id, j.entry, j.state, j.queue, j.priority, (j.gating ? 'lane') IS TRUE AS laned
    ), came AS (
        INSERT INTO dayjob.arrival (entry, id) SELECT new.entry, new.id FROM new WHERE NOT own AND new.state <> 'blocked'
    ), level AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, 0, moment FROM (SELECT DISTINCT new.queue, new.priority FROM new WHERE own AND new.state = 'available' AND NOT new.laned) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = 0
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    ), ready AS (
        INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
        SELECT new.entry, new.entry, new.id, new.priority, 0, new.queue FROM new WHERE own AND new.state = 'available' AND NOT new.laned
    )
    SELECT (SELECT flaw.problem FROM flaw), (SELECT array_agg(new.id) FROM new),
        (SELECT array_agg(s.o ORDER BY s.o) FROM s WHERE s.careful), (SELECT array_agg(s.n ORDER BY s.o) FROM s WHERE s.careful),
        (SELECT array_agg(new.id ORDER BY new.entry) FROM new WHERE own AND new.state = 'available' AND new.laned)
        INTO wrong, stored, picked, entries, laned;
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
        DELETE FROM dayjob.ready AS r USING dayjob.job AS j
        WHERE j.id = ANY (known) AND r.queue = j.queue AND r.priority = j.priority AND r.kind = 0 AND r.place = j.place AND r.entry = j.entry;
        DELETE FROM dayjob.job AS j WHERE j.id = ANY (known);
    END IF;
    IF laned IS NOT NULL THEN
        PERFORM dayjob.place_lanes(laned, moment);
    END IF;
    IF NOT own THEN
        PERFORM pg_notify('dayjob', 'w=');
    END IF;
    IF picked IS NOT NULL THEN
        RETURN QUERY SELECT c.* FROM dayjob.store_each(rows, picked, entries, moment, repeat, own) AS c;
    END IF;
    RETURN QUERY SELECT r.n::integer, CASE WHEN r.id = ANY (stored) AND NOT r.id = ANY (coalesce(known, '{}'))
        AND r.n = min(r.n) OVER (PARTITION BY r.id) THEN 'inserted' ELSE 'existing' END, NULL::uuid, NULL::text
    FROM (SELECT (e.value ->> 'id')::uuid AS id, e.n FROM jsonb_array_elements(rows) WITH ORDINALITY AS e (value, n)) AS r
    WHERE picked IS NULL OR r.n <> ALL (picked) ORDER BY r.n;
END $$;

-- The same for those who know of no refusals: one is an error. What exists already answers `existing`.
CREATE OR REPLACE FUNCTION dayjob.enqueue_rows(
    rows jsonb, at bigint DEFAULT NULL, home text DEFAULT NULL, repeat boolean DEFAULT true
) RETURNS TABLE (number integer, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    told record;
BEGIN
    FOR told IN SELECT a.* FROM dayjob.accept_rows(rows, at, home, repeat) AS a ORDER BY a.number LOOP
        IF told.outcome IN ('full', 'closed', 'busy', 'held') THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('dayjob' || '.enqueue: queue %s is %s', rows -> (told.number - 1) ->> 'queue', told.outcome),
                HINT = 'roll back, and try again later';
        END IF;
        number := told.number;
        outcome := CASE WHEN told.outcome = 'inserted' THEN 'inserted' ELSE 'existing' END;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION dayjob.complete_job(
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
        max_attempts, attempt, crashes, round, recorded, state, queue, task, payload, result, tags, meta, options, worker, progress, gating)
    VALUES (done.id, done.entry, done.created_at, done.run_at, done.expires_at, nullif(started_at, 0),
        coalesce(nullif(finished_at, 0), moment), until, day, done.priority, done.max_attempts, done.attempt + 1, done.crashes,
        done.round, done.recorded, 'completed', done.queue, done.task, done.payload, result, done.tags, done.meta, done.options,
        (SELECT w.name FROM dayjob.worker AS w WHERE w.id = by_worker), done.progress, done.gating);
    INSERT INTO dayjob.total (goes, queue, state, jobs) VALUES (day, done.queue, 'completed', 1);
    INSERT INTO dayjob.log (id, at, level, message)
    SELECT done.id, l.at, l.level, l.message FROM jsonb_to_recordset(lines) AS l (at bigint, level text, message text);
    RETURN true;
END $$;

-- As before, but for queues with limits, of which the caller then learns.
CREATE OR REPLACE PROCEDURE dayjob.put(
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
    IF EXISTS (SELECT 1 FROM dayjob.queue_limit AS l WHERE l.queue = into_queue AND (l.max_depth IS NOT NULL OR l.closed IS NOT NULL)) THEN
        RAISE EXCEPTION USING ERRCODE = 'DJ001', MESSAGE = 'this queue has a limit: its jobs go by accept_rows';
    END IF;
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

-- As before; those with lanes get their places by turn, those with gates are blocked. What somebody's open transaction puts off is
-- left: it is told of again, or the next look of all finds it, the leader's of every second.
CREATE OR REPLACE FUNCTION dayjob.admit_arrivals(seen pg_snapshot, moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    laned uuid[];
BEGIN
    WITH here AS MATERIALIZED (  -- by an array: to join them, the planner may walk over all dead rows of `arrival`
        SELECT a.ctid AS address, a.id FROM dayjob.arrival AS a WHERE a.xid = ANY (ARRAY(
            SELECT b.xid FROM dayjob.arrival AS b WHERE b.xid >= coalesce(pg_snapshot_xmax(seen), '0'::xid8)
            UNION SELECT x FROM pg_snapshot_xip(seen) AS x)) FOR UPDATE SKIP LOCKED
    ), came AS (
        DELETE FROM dayjob.arrival AS a WHERE a.ctid = ANY (ARRAY(
            SELECT h.address FROM here AS h
            WHERE (SELECT j.gating IS NULL OR dayjob.is_free(j.id) FROM dayjob.job AS j WHERE j.id = h.id) IS NOT FALSE)) RETURNING a.id, a.entry
    ), numbered AS MATERIALIZED (
        SELECT id, entry, nextval('dayjob.entry') AS place FROM (SELECT id, entry FROM came ORDER BY entry) AS c
    ), job AS (
        UPDATE dayjob.job AS j SET state = dayjob.next_state(j.gating), entry = n.place,
            place = CASE WHEN j.gating IS NULL THEN n.place ELSE dayjob.place_of(j, j.gating, n.place) END FROM numbered AS n
        WHERE j.id = n.id AND j.entry = n.entry AND (j.state = 'available' OR (j.state = 'scheduled' AND j.run_at <= moment))
        RETURNING j.id, j.entry, j.place, j.queue, j.priority, j.state = 'available' AND (j.gating ? 'lane') IS NOT TRUE AS plain,
            j.state = 'available' AND j.gating ? 'lane' AS laned
    ), known AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, 0, moment FROM (SELECT DISTINCT queue, priority FROM job WHERE plain) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = 0
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    ), stored AS (
        INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
        SELECT place, entry, id, priority, 0, queue FROM job WHERE plain
    )
    SELECT array_agg(id ORDER BY entry) INTO laned FROM job WHERE job.laned;
    IF laned IS NOT NULL THEN
        PERFORM dayjob.place_lanes(laned, moment);
    END IF;
END $$;

-- As before; those with lanes get their places by turn, those with gates are blocked. What somebody's open transaction puts off
-- is left for the next time.
CREATE OR REPLACE FUNCTION dayjob.stage_due(moment bigint, since bigint, most integer) RETURNS integer LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    staged integer;
    laned uuid[];
BEGIN
    PERFORM 1 FROM dayjob.job WHERE state = 'scheduled' AND run_at >= since AND run_at <= moment LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH due AS MATERIALIZED (
        SELECT id, entry, nextval('dayjob.entry') AS place FROM (
            SELECT id, entry FROM dayjob.job WHERE state = 'scheduled' AND run_at >= since AND run_at <= moment
                AND (gating IS NULL OR dayjob.is_free(id))
            ORDER BY run_at, entry LIMIT most) AS d
    ), job AS (
        UPDATE dayjob.job AS j SET state = dayjob.next_state(j.gating), entry = d.place,
            place = CASE WHEN j.gating IS NULL THEN d.place ELSE dayjob.place_of(j, j.gating, d.place) END FROM due AS d
        WHERE j.id = d.id AND j.entry = d.entry AND j.state = 'scheduled'
        RETURNING j.id, j.place, j.queue, j.priority, j.suspect, j.state = 'available' AND (j.gating ? 'lane') IS NOT TRUE AS plain,
            j.state = 'available' AND j.gating ? 'lane' AS laned
    ), known AS (
        INSERT INTO dayjob.level (queue, priority, kind, used_at)
        SELECT n.queue, n.priority, n.kind, moment
        FROM (SELECT DISTINCT queue, priority, CASE WHEN suspect THEN 2 ELSE 0 END AS kind FROM job WHERE plain) AS n
        WHERE NOT EXISTS (SELECT 1 FROM dayjob.level AS k WHERE k.queue = n.queue AND k.priority = n.priority AND k.kind = n.kind
            AND k.used_at > moment - 3600000000)
        ON CONFLICT (queue, priority, kind) DO UPDATE SET used_at = excluded.used_at
    ), stored AS (
        INSERT INTO dayjob.ready (place, entry, id, priority, kind, queue)
        SELECT place, place, id, priority, CASE WHEN suspect THEN 2 ELSE 0 END, queue FROM job WHERE plain
    )
    SELECT count(*), array_agg(id ORDER BY place) FILTER (WHERE job.laned) INTO staged, laned FROM job;
    IF laned IS NOT NULL THEN
        PERFORM dayjob.place_lanes(laned, moment);
    END IF;
    RETURN staged;
END $$;

-- How many may still be claimed from each queue with a limit of what runs or starts.
CREATE FUNCTION dayjob.queue_caps(moment bigint) RETURNS jsonb LANGUAGE sql STABLE
AS $$
    WITH runs AS MATERIALIZED (
        SELECT j.queue, count(*) AS jobs FROM dayjob.lease AS l CROSS JOIN LATERAL unnest(l.ids, l.entries) AS u (id, entry)
        CROSS JOIN LATERAL (SELECT j.queue FROM dayjob.job AS j WHERE j.id = u.id AND j.entry = u.entry OFFSET 0) AS j
        WHERE l.open > 0 GROUP BY j.queue
    )
    SELECT jsonb_object_agg(l.queue, greatest(least(
        l.concurrency - coalesce((SELECT r.jobs FROM runs AS r WHERE r.queue = l.queue), 0),
        l.rate - CASE WHEN l.rate IS NOT NULL THEN (SELECT count(*) FROM dayjob.token AS t
            WHERE t.gate = dayjob.gate_id('queue', l.queue) AND t.until > moment) END), 0))
    FROM dayjob.limit_in_force AS l WHERE l.concurrency IS NOT NULL OR l.rate IS NOT NULL
$$;

-- The next time that opens a gate at which lines wait, or a queue whose rate is used up.
CREATE FUNCTION dayjob.next_opening(moment bigint) RETURNS bigint LANGUAGE sql STABLE
AS $$
    SELECT least((SELECT g.opens FROM dayjob.gate AS g WHERE g.opens IS NOT NULL ORDER BY g.opens LIMIT 1), (
        SELECT min(t.until) FROM dayjob.limit_in_force AS l CROSS JOIN LATERAL (
            SELECT t.until FROM dayjob.token AS t WHERE t.gate = dayjob.gate_id('queue', l.queue) AND t.until > moment
            ORDER BY t.until DESC LIMIT 1 OFFSET l.rate - 1) AS t
        WHERE l.rate > 0 AND EXISTS (SELECT 1 FROM dayjob.ready AS r WHERE r.queue = l.queue)))
$$;

-- The leader's sweep, all of it in one call: while it has the turn nobody can claim, least of all wait for a busy process. As a claim,
-- it does not wait for the disk. Without an answer to *moment* another leads.
CREATE FUNCTION dayjob.sweep_lines(
    of_term bigint, at bigint, most integer, patience bigint, after uuid,
    OUT moment bigint, OUT admitted integer, OUT opens bigint, OUT rest uuid
) LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(hashtext('dayjob'), 1);
    PERFORM dayjob.admit_arrivals(NULL, coalesce(at, dayjob.clock()));
    SELECT coalesce(at, dayjob.clock()) INTO moment FROM dayjob.cluster AS c WHERE c.term = of_term AND c.leader IS NOT NULL FOR SHARE;
    IF FOUND THEN
        admitted := dayjob.admit_lines(moment, most);
        rest := dayjob.take_back(moment, patience, after);
        IF admitted < most THEN
            admitted := admitted + dayjob.admit_lines(moment, most - admitted);
        END IF;
        opens := dayjob.next_opening(moment);
    END IF;
END $$;

-- What is over goes, and of the 500 gates *after* this one those that nobody needs any more. Answers the last of these, and
-- whether so much went that there may be a lot more.
CREATE FUNCTION dayjob.sweep_gates(moment bigint, after uuid, OUT rest uuid, OUT plenty boolean) LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(hashtext('dayjob'), 1);
    WITH t AS (
        DELETE FROM dayjob.token WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM dayjob.token AS t WHERE t.until <= moment ORDER BY t.until LIMIT 5000))
        RETURNING 1
    ), k AS (
        DELETE FROM dayjob.unique_key WHERE hash IN (
            SELECT u.hash FROM dayjob.unique_key AS u WHERE u.frees <= moment ORDER BY u.frees LIMIT 5000 FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), page AS MATERIALIZED (
        SELECT g.id, g.opens, g.shut_until, g.said_tokens FROM dayjob.gate AS g WHERE g.id > after ORDER BY g.id LIMIT 500
    ), g AS (
        DELETE FROM dayjob.gate WHERE id IN (
            SELECT p.id FROM page AS p WHERE p.opens IS NULL AND p.said_tokens IS NULL AND coalesce(p.shut_until, 0) <= moment
                AND (SELECT true FROM dayjob.token AS t WHERE t.gate = p.id ORDER BY t.until LIMIT 1) IS NULL
                AND (SELECT true FROM dayjob.line AS l WHERE l.gate = p.id LIMIT 1) IS NULL)
        RETURNING 1
    )
    SELECT (SELECT p.id FROM page AS p ORDER BY p.id OFFSET 499),
        (SELECT count(*) FROM g) >= 250 OR (SELECT count(*) FROM t) >= 5000 OR (SELECT count(*) FROM k) >= 5000
        INTO rest, plenty;
END $$;

-- What *jobs* reserved of rates counts from now on.
CREATE FUNCTION dayjob.stamp_rates(jobs uuid[], moment bigint) RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM 1 FROM dayjob.token AS t WHERE t.kind = 'rate' AND t.until IS NULL LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WITH stamped AS (
        UPDATE dayjob.token AS t SET at = moment, until = moment + (coalesce(g.said_per, g.per) * 1000000)::bigint FROM dayjob.gate AS g
        WHERE t.ctid = ANY (ARRAY(
            SELECT r.ctid FROM unnest(jobs) AS j (id) CROSS JOIN LATERAL (
                SELECT r.ctid, r.kind, r.until FROM dayjob.token AS r WHERE r.holder = j.id::text OFFSET 0) AS r
            WHERE r.kind = 'rate' AND r.until IS NULL))
            AND g.id = t.gate RETURNING t.gate, t.until
    ), first AS (SELECT s.gate, min(s.until) AS until FROM stamped AS s GROUP BY s.gate)
    UPDATE dayjob.gate AS g SET opens = least(g.opens, f.until) FROM first AS f
    WHERE g.id = f.gate AND EXISTS (SELECT 1 FROM dayjob.line AS l WHERE l.gate = g.id);
END $$;

-- A claim where queues have limits (*caps*), or somebody changes a waiting job in a transaction of his own: such rows are passed by.
CREATE FUNCTION dayjob.pick_patiently(
    of_queues text[], but text[], most integer, only_suspects boolean, caps jsonb,
    OUT ids uuid[], OUT entries bigint[], OUT queues text[]
) LANGUAGE plpgsql
AS $$
BEGIN
    WITH level AS MATERIALIZED (
        SELECT l.queue, l.priority, l.kind, CASE WHEN l.kind = 0 AND l.floor <= (SELECT s.last_value FROM dayjob.entry AS s) THEN l.floor ELSE 0 END AS floor
        FROM dayjob.level AS l
        WHERE (of_queues IS NULL OR l.queue = ANY (of_queues)) AND l.queue <> ALL (but) AND (l.kind = 2) = only_suspects
            AND coalesce((caps ->> l.queue)::bigint, 1) > 0
            AND NOT EXISTS (SELECT 1 FROM dayjob.paused AS p WHERE p.queue = l.queue)
    ), few AS MATERIALIZED (
        SELECT l.queue, l.priority, l.kind, r.* FROM level AS l CROSS JOIN LATERAL (
            SELECT r.ctid AS address, r.place, r.id, r.entry FROM dayjob.ready AS r
            WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind AND r.place >= l.floor
            ORDER BY r.place, r.entry LIMIT least(most, coalesce((caps ->> l.queue)::bigint, most)) FOR UPDATE SKIP LOCKED) AS r
    ), picked AS MATERIALIZED (
        SELECT f.* FROM (
            SELECT f.*, row_number() OVER (PARTITION BY f.queue ORDER BY f.priority DESC, f.place, f.kind, f.entry) AS n FROM few AS f) AS f
        WHERE f.n <= coalesce((caps ->> f.queue)::bigint, most)
        ORDER BY f.priority DESC, f.place, f.kind, f.entry LIMIT most
    ), gone AS (
        DELETE FROM dayjob.ready WHERE ctid = ANY (ARRAY(SELECT p.address FROM picked AS p))
    )
    SELECT array_agg(p.id), array_agg(p.entry), array_agg(p.queue) INTO ids, entries, queues FROM picked AS p;
END $$;

-- As before, and between stage and claim blocked jobs are admitted; `heard` has 4 more where settlements may free what a claim needs.
CREATE OR REPLACE FUNCTION dayjob.claim(
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
    gated boolean;
    started boolean;
    limited boolean;
    patient boolean;
    caps jsonb;
    picked_queues text[];
    all_queues text[] := '{}';
    last_priority integer;
    last_place bigint;
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
    SELECT EXISTS (SELECT 1 FROM dayjob.token) OR EXISTS (SELECT 1 FROM dayjob.line) OR EXISTS (SELECT 1 FROM dayjob.wake),
        EXISTS (SELECT 1 FROM dayjob.queue_limit)
        INTO gated, limited;
    IF gated THEN
        IF EXISTS (SELECT 1 FROM dayjob.wake) OR EXISTS (SELECT 1 FROM dayjob.gate AS g WHERE g.opens <= moment)
            OR EXISTS (SELECT 1 FROM dayjob.line AS l WHERE l.gate = dayjob.no_gate()) THEN
            -- Where as many can be claimed as are wanted, only who comes before the last of them is let in.
            SELECT e.priority, e.place INTO last_priority, last_place
            FROM jsonb_to_recordset(wants) AS w (queues text[], exclude text[], "limit" integer, suspects boolean, id uuid)
            CROSS JOIN LATERAL (
                SELECT r.priority, r.place FROM (
                    SELECT l.queue, l.priority, l.kind, CASE WHEN l.kind = 0 AND l.floor <= top THEN l.floor ELSE 0 END AS floor
                    FROM dayjob.level AS l
                    WHERE (w.queues IS NULL OR l.queue = ANY (w.queues)) AND l.queue <> ALL (w.exclude) AND l.kind <> 2
                        AND NOT EXISTS (SELECT 1 FROM dayjob.paused AS p WHERE p.queue = l.queue)
                    ORDER BY l.priority DESC LIMIT 4) AS l
                CROSS JOIN LATERAL (
                    SELECT r.priority, r.place FROM dayjob.ready AS r
                    WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind AND r.place >= l.floor
                    ORDER BY r.place, r.entry LIMIT w."limit") AS r
                ORDER BY r.priority DESC, r.place OFFSET greatest(w."limit" - 1, 0) LIMIT 1) AS e
            WHERE jsonb_array_length(wants) = 1 AND w.id IS NULL AND NOT w.suspects AND NOT limited;
            PERFORM dayjob.admit_lines(moment, 1000, last_priority, last_place);
        END IF;
    END IF;
    IF limited THEN
        caps := dayjob.queue_caps(moment);
    END IF;
    known_floors := (  -- to look one up is no walk over all: a queue for each customer makes thousands
        SELECT jsonb_object_agg(f.priority || ' ' || f.queue, f.floor)
        FROM unnest(floor_queues, floor_priorities, floors) AS f (queue, priority, floor) WHERE f.floor <= top);
    SELECT c.control, (SELECT run_at FROM dayjob.job WHERE state = 'scheduled' AND run_at >= due_floor ORDER BY run_at LIMIT 1)
        INTO control, next_due FROM dayjob.cluster AS c;

    claimed := 0;
    levels := '[]';
    heard := CASE WHEN dayjob.nobody(13) THEN 0 ELSE 1 END + CASE WHEN dayjob.nobody(14) THEN 0 ELSE 2 END
        + CASE WHEN limited OR EXISTS (SELECT 1 FROM dayjob.line AS l WHERE l.gate > dayjob.no_gate()) THEN 4 ELSE 0 END;
    PERFORM 1 FROM dayjob.lease AS l WHERE l.worker = by_worker AND l.claim_no = number;
    IF FOUND THEN
        claimed := -1;  -- the reply to this claim was lost: the same batch again
    ELSE
        PERFORM 1 FROM dayjob.worker AS w WHERE w.id = by_worker AND w.lost_at IS NULL;
        IF FOUND THEN
            FOR want IN SELECT * FROM jsonb_to_recordset(wants)
                AS w (queues text[], exclude text[], "limit" integer, suspects boolean, id uuid)
            LOOP
                patient := caps IS NOT NULL OR NOT dayjob.nobody(20);
                picked_queues := NULL;
                IF want.id IS NOT NULL THEN
                    WITH gone AS (
                        DELETE FROM dayjob.ready AS r USING dayjob.job AS j
                        WHERE j.id = want.id AND r.queue = j.queue AND r.priority = j.priority AND r.kind IN (0, 1, 2, 3)
                            AND r.place = j.place AND r.entry = j.entry RETURNING r.id, r.entry
                    )
                    SELECT array_agg(g.id), array_agg(g.entry) INTO picked_ids, picked_entries FROM gone AS g;
                ELSIF patient THEN
                    SELECT p.ids, p.entries, p.queues INTO picked_ids, picked_entries, picked_queues
                    FROM dayjob.pick_patiently(want.queues, want.exclude, want."limit", want.suspects, caps) AS p;
                    SELECT jsonb_object_agg(c.key, c.value::bigint - (SELECT count(*) FROM unnest(picked_queues) AS q (queue) WHERE q.queue = c.key))
                        INTO caps FROM jsonb_each_text(caps) AS c;
                ELSE
                    WITH level AS MATERIALIZED (
                        SELECT l.queue, l.priority, l.kind, CASE WHEN l.kind = 0 THEN greatest(
                            CASE WHEN l.floor <= top THEN l.floor ELSE 0 END,
                            (known_floors -> (l.priority || ' ' || l.queue))::bigint) ELSE 0 END AS floor
                        FROM dayjob.level AS l
                        WHERE (want.queues IS NULL OR l.queue = ANY (want.queues)) AND l.queue <> ALL (want.exclude)
                            AND CASE WHEN want.suspects THEN l.kind = 2 ELSE l.kind <> 2 END
                            AND NOT EXISTS (SELECT 1 FROM dayjob.paused AS p WHERE p.queue = l.queue)
                    ), few AS MATERIALIZED (  -- of many levels a few rows each
                        SELECT l.queue, l.priority, l.kind, r.*
                        FROM level AS l CROSS JOIN LATERAL (
                            SELECT r.ctid AS address, r.place, r.id, r.entry FROM dayjob.ready AS r
                            WHERE r.queue = l.queue AND r.priority = l.priority AND r.kind = l.kind AND r.place >= l.floor
                            ORDER BY r.place, r.entry LIMIT (SELECT CASE WHEN count(*) <= 2 THEN want."limit"
                                ELSE least(want."limit", 10 + 2 * want."limit" / count(*)) END FROM level)) AS r
                    ), rest AS (  -- and the rest of those that had no more to offer than they were asked for
                        SELECT s.queue, s.priority, s.kind, r.*
                        FROM (
                            SELECT queue, priority, kind, max(place) AS place, count(*) AS found FROM few GROUP BY 1, 2, 3
                            HAVING count(*) = 10 + 2 * want."limit" / (SELECT count(*) FROM level)) AS s
                        CROSS JOIN LATERAL (
                            SELECT r.ctid AS address, r.place, r.id, r.entry FROM dayjob.ready AS r
                            WHERE r.queue = s.queue AND r.priority = s.priority AND r.kind = s.kind
                                AND (r.place, r.entry) > (s.place, (SELECT max(f.entry) FROM few AS f
                                    WHERE f.queue = s.queue AND f.priority = s.priority AND f.kind = s.kind AND f.place = s.place))
                            ORDER BY r.place, r.entry LIMIT want."limit" - s.found) AS r
                        WHERE (SELECT count(*) FROM level) > 2 AND (s.priority, -s.place) > (
                            SELECT coalesce(min(b.priority), -2147483648), coalesce(min(-b.place), 0) FROM (
                                SELECT priority, place FROM few ORDER BY priority DESC, place OFFSET want."limit" - 1 LIMIT 1) AS b)
                    ), picked AS MATERIALIZED (
                        SELECT * FROM (SELECT * FROM few UNION ALL SELECT * FROM rest) AS p
                        ORDER BY p.priority DESC, p.place, p.kind, p.entry LIMIT want."limit"
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
                    all_queues := all_queues || picked_queues;
                END IF;
            END LOOP;
            claimed := cardinality(all_ids);
            IF claimed > 0 THEN
                INSERT INTO dayjob.lease (worker, claim_no, claimed_at, open, ids, entries)
                VALUES (by_worker, number, moment, claimed, all_ids, all_entries)
                -- not before the jobs are picked: of one that came meanwhile the key would stay
                RETURNING EXISTS (SELECT 1 FROM dayjob.unique_key WHERE until = 'started') INTO started;
                IF started THEN
                    DELETE FROM dayjob.unique_key AS u WHERE u.hash IN (
                        SELECT k.hash FROM dayjob.unique_key AS k WHERE k.id = ANY (all_ids) AND k.until = 'started' FOR UPDATE SKIP LOCKED);
                END IF;
                IF gated THEN
                    PERFORM dayjob.stamp_rates(all_ids, moment);
                END IF;
                IF caps IS NOT NULL THEN
                    INSERT INTO dayjob.token (gate, holder, no, kind, at, until)
                    SELECT dayjob.gate_id('queue', l.queue), u.id::text, u.entry, 'queue', moment, moment + (l.per * 1000000)::bigint
                    FROM unnest(all_ids, all_entries, all_queues) AS u (id, entry, queue)
                    JOIN dayjob.limit_in_force AS l ON l.queue = u.queue WHERE l.rate IS NOT NULL;
                END IF;
            END IF;
        END IF;
    END IF;
    IF gated OR limited THEN
        next_due := least(next_due, dayjob.next_opening(moment));
        -- Others came before and were all that a look lets in: the next one may get to what is wanted.
        IF claimed < (SELECT sum((w ->> 'limit')::integer) FROM jsonb_array_elements(wants) AS w)
            AND EXISTS (SELECT 1 FROM dayjob.line AS l WHERE l.gate = dayjob.no_gate()) THEN
            next_due := least(next_due, moment + 100000);
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

-- As before, and the blocked ones.
CREATE OR REPLACE FUNCTION dayjob.depths() RETURNS TABLE (queue text, state text, jobs bigint) LANGUAGE sql STABLE
AS $$
    WITH waiting AS (
        SELECT 'available' AS state, 'dayjob.ready_pkey'::regclass AS index, r.queue
        FROM (SELECT r.queue FROM dayjob.ready AS r LIMIT 1000000) AS r
        UNION ALL
        SELECT 'scheduled', 'dayjob.job_due'::regclass, j.queue
        FROM (SELECT j.queue FROM dayjob.job AS j WHERE j.state = 'scheduled' ORDER BY j.run_at LIMIT 1000000) AS j
        UNION ALL
        SELECT 'blocked', 'dayjob.waits_queue'::regclass, w.queue FROM (SELECT w.queue FROM dayjob.waits AS w LIMIT 1000000) AS w
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
