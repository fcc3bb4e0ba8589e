-- The live jobs. `entry` is the row's address and its fence: whatever changes hands gets a new one, so a stale
-- writer finds nothing. `place` orders a queue and survives release, loss and crash.
CREATE TABLE dayjob_job (
    entry INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    place INTEGER NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    payload BLOB NOT NULL,
    max_attempts INTEGER,
    created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    expires_at INTEGER,
    tags TEXT,
    meta TEXT,
    options BLOB,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    round INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    recorded INTEGER NOT NULL DEFAULT 0,
    lease INTEGER,
    cancelling INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    progress TEXT
);
CREATE UNIQUE INDEX dayjob_job_id ON dayjob_job (id);
CREATE INDEX dayjob_job_ready ON dayjob_job (queue, priority DESC, place) WHERE state = 'available' AND suspect = 0;
CREATE INDEX dayjob_job_suspect ON dayjob_job (queue, priority DESC, place) WHERE state = 'available' AND suspect = 1;
CREATE INDEX dayjob_job_due ON dayjob_job (run_at, queue) WHERE state = 'scheduled';
CREATE INDEX dayjob_job_expires ON dayjob_job (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX dayjob_job_cancelling ON dayjob_job (lease) WHERE cancelling = 1;

-- The finished jobs.
CREATE TABLE dayjob_history (
    entry INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    priority INTEGER NOT NULL,
    payload BLOB NOT NULL,
    result BLOB,
    error BLOB,
    max_attempts INTEGER,
    created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    expires_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    keep_until INTEGER,
    tags TEXT,
    meta TEXT,
    options BLOB,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    round INTEGER NOT NULL,
    worker TEXT,
    progress TEXT
);
CREATE UNIQUE INDEX dayjob_history_id ON dayjob_history (id);
CREATE INDEX dayjob_history_finished ON dayjob_history (state, queue, finished_at);
CREATE INDEX dayjob_history_keep ON dayjob_history (keep_until) WHERE keep_until IS NOT NULL;

-- Ids that left the history less than an hour after they finished: a repeated enqueue must still find them.
CREATE TABLE dayjob_gone (no INTEGER PRIMARY KEY, id TEXT NOT NULL, until INTEGER NOT NULL);
CREATE INDEX dayjob_gone_id ON dayjob_gone (id);

-- What a job left behind, by its id.
CREATE TABLE dayjob_attempt (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    number INTEGER NOT NULL,
    round INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    worker TEXT,
    error BLOB,
    reason TEXT
);
CREATE INDEX dayjob_attempt_id ON dayjob_attempt (id);
CREATE TABLE dayjob_log (no INTEGER PRIMARY KEY, id TEXT NOT NULL, at INTEGER NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL);
CREATE INDEX dayjob_log_id ON dayjob_log (id);
CREATE TABLE dayjob_checkpoint (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- One row: the source of entries, the version of controls, live time, and who leads.
CREATE TABLE dayjob_cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    entry INTEGER NOT NULL,
    control INTEGER NOT NULL,
    live INTEGER NOT NULL,
    beat_at INTEGER NOT NULL,
    term INTEGER NOT NULL,
    leader TEXT
);
INSERT INTO dayjob_cluster VALUES (1, 0, 0, 0, 0, 0, NULL);

-- Workers; one that was given up stays for a day, so that its late beat learns it.
CREATE TABLE dayjob_worker (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    solo INTEGER NOT NULL,
    info BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    beat_at INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    lost_at INTEGER
) WITHOUT ROWID;

-- One row per claimed batch; `entries` is the JSON array of what was claimed.
CREATE TABLE dayjob_lease (
    no INTEGER PRIMARY KEY,
    worker TEXT NOT NULL,
    claim_no INTEGER NOT NULL,
    claimed_at INTEGER NOT NULL,
    entries TEXT NOT NULL,
    UNIQUE (worker, claim_no)
);
-- Per boot of the machine, microseconds from its boot clock to UTC (bootclock.py).
CREATE TABLE dayjob_clock (no INTEGER PRIMARY KEY, boot TEXT UNIQUE, offset INTEGER NOT NULL);

CREATE TABLE dayjob_paused (queue TEXT PRIMARY KEY) WITHOUT ROWID;

-- Counts and samples, one row per minute, queue and name.
CREATE TABLE dayjob_sample (
    at INTEGER NOT NULL, queue TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (at, queue, name)
) WITHOUT ROWID;

CREATE TABLE dayjob_record (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, expires_at INTEGER,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
