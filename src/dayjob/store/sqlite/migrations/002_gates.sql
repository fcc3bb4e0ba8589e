-- Keys, lanes and gates (store/gating.py). `gating` is what a job was given; `lane` is set while its place follows from
-- its lane, `line` while it has to pass gates: a number made of their names (lines.py), negative for a strict lane's.
ALTER TABLE dayjob_job ADD COLUMN gating TEXT;
ALTER TABLE dayjob_job ADD COLUMN lane TEXT;
ALTER TABLE dayjob_job ADD COLUMN line INTEGER;
ALTER TABLE dayjob_history ADD COLUMN gating TEXT;
-- The nulls come first: each write of a job looks at these conditions, and a null is seen sooner than a text compared.
CREATE INDEX dayjob_job_lane ON dayjob_job (queue, priority, lane, place) WHERE lane IS NOT NULL AND state = 'available';
CREATE INDEX dayjob_job_blocked ON dayjob_job (line, iif(line < 0, 0, priority) DESC, place)
    WHERE line IS NOT NULL AND state = 'blocked';
CREATE INDEX dayjob_job_parked ON dayjob_job (queue, priority, place) WHERE line IS NOT NULL AND state = 'blocked';

-- Whether there ever was a job with gating, and whether a queue has limits: who sees 0 looks no further.
ALTER TABLE dayjob_cluster ADD COLUMN gated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dayjob_cluster ADD COLUMN limited INTEGER NOT NULL DEFAULT 0;

-- Who holds a key.
CREATE TABLE dayjob_key (hash TEXT PRIMARY KEY, id TEXT NOT NULL, until TEXT NOT NULL, expires INTEGER) WITHOUT ROWID;
CREATE INDEX dayjob_key_expires ON dayjob_key (expires) WHERE expires IS NOT NULL;
CREATE INDEX dayjob_key_started ON dayjob_key (hash) WHERE until = 'started';

-- A gate is named by the first letter of its kind and its key: c:stripe. The numbers of the newest job that names it, and
-- over them those that were set (`tokens` 0: no job has named it yet); nobody passes before `shut`; `opens` is when to look again at who waits.
CREATE TABLE dayjob_gate (
    gate TEXT PRIMARY KEY,
    tokens INTEGER NOT NULL,
    per INTEGER NOT NULL,
    set_tokens INTEGER,
    set_per INTEGER,
    shut INTEGER,
    opens INTEGER
) WITHOUT ROWID;
CREATE INDEX dayjob_gate_opens ON dayjob_gate (opens) WHERE opens IS NOT NULL;

-- Tokens that are not free. `holder`: the entry of a job, ~ and a name (`take`), or nobody, of a rate that counts a start
-- (`at`): minus the entry that started, or a random blob. `ends`: free by time alone.
CREATE TABLE dayjob_token (
    holder NOT NULL, gate TEXT NOT NULL, at INTEGER NOT NULL, ends INTEGER, PRIMARY KEY (holder, gate)
) WITHOUT ROWID;
CREATE INDEX dayjob_token_gate ON dayjob_token (gate, ends);
CREATE INDEX dayjob_token_ends ON dayjob_token (ends) WHERE ends IS NOT NULL;

-- Lines of blocked jobs: the gate at which one waits ('': to be looked at), and how urgent its head is, at most.
CREATE TABLE dayjob_line (no INTEGER PRIMARY KEY, gate TEXT NOT NULL, priority INTEGER NOT NULL, place INTEGER NOT NULL);
CREATE INDEX dayjob_line_gate ON dayjob_line (gate, priority DESC, place);
-- Gates at which lines wait and of which a token came free.
CREATE TABLE dayjob_freed (gate TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE dayjob_breaker (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER
) WITHOUT ROWID;
CREATE INDEX dayjob_breaker_until ON dayjob_breaker (until) WHERE until IS NOT NULL;
CREATE TABLE dayjob_failure (no INTEGER PRIMARY KEY, key TEXT NOT NULL, at INTEGER NOT NULL, ends INTEGER NOT NULL);
CREATE INDEX dayjob_failure_key ON dayjob_failure (key, at);
CREATE INDEX dayjob_failure_ends ON dayjob_failure (ends);

-- What holds for whole queues, as QueueLimits: what was said at run time wins over code.
CREATE TABLE dayjob_limit (queue TEXT PRIMARY KEY, code TEXT, run TEXT) WITHOUT ROWID;

-- The one `leave`: whoever deletes a job or gives it a new entry frees what it held, also a worker that knows no gates.
-- Tokens have no trigger of their own, which would cost each deletion a temporary table; `holder = +…`: else the column's
-- affinity forbids the index.
CREATE TRIGGER dayjob_job_gone AFTER DELETE ON dayjob_job WHEN OLD.gating IS NOT NULL BEGIN
    INSERT INTO dayjob_freed (gate) SELECT t.gate FROM dayjob_token AS t WHERE t.holder = +OLD.entry
        AND EXISTS (SELECT 1 FROM dayjob_line AS l WHERE l.gate = t.gate) ON CONFLICT (gate) DO NOTHING
    ; DELETE FROM dayjob_token WHERE holder = +OLD.entry
    ; DELETE FROM dayjob_key WHERE substr(OLD.gating, 1, 9) = '{"unique"'
        AND hash = json_extract(OLD.gating, '$.unique.hash') AND id = OLD.id AND until <> 'expired'
    ; UPDATE dayjob_line SET gate = '' WHERE no = OLD.line AND OLD.line < 0 AND OLD.state = 'blocked'
    ; END;
CREATE TRIGGER dayjob_job_moved AFTER UPDATE OF entry ON dayjob_job WHEN OLD.line IS NOT NULL BEGIN
    INSERT INTO dayjob_freed (gate) SELECT t.gate FROM dayjob_token AS t
        WHERE t.holder = +OLD.entry AND substr(t.gate, 1, 2) <> 'o:'
        AND EXISTS (SELECT 1 FROM dayjob_line AS l WHERE l.gate = t.gate) ON CONFLICT (gate) DO NOTHING
    ; DELETE FROM dayjob_token WHERE holder = +OLD.entry AND substr(gate, 1, 2) <> 'o:'
    ; UPDATE dayjob_token SET holder = NEW.entry WHERE holder = +OLD.entry
    ; UPDATE dayjob_line SET gate = '' WHERE no = OLD.line AND OLD.line < 0 AND OLD.state = 'blocked'
    ; INSERT INTO dayjob_line (no, gate, priority, place)
        SELECT NEW.line, '', NEW.priority, NEW.place WHERE NEW.line IS NOT NULL AND NEW.state = 'blocked'
        ON CONFLICT (no) DO UPDATE SET gate = iif(no < 0, '', gate), place = iif(excluded.priority > priority
            OR (excluded.priority = priority AND excluded.place < place), excluded.place, place),
            priority = max(excluded.priority, priority)
    ; END;
