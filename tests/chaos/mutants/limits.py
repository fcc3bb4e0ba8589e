"""Bugs in what jobs wait for: keys, limits and rates that hold too little, or too much."""

from __future__ import annotations

from tests.chaos.mutants.mutant import (
    CONCURRENT,
    DRAINED,
    LOST,
    LUA,
    RATED,
    TOLD,
    UNIQUE,
    Mutant,
)
from tests.chaos.mutation import Change
from tests.chaos.storms import RUSHES

SQLITE_GATES = "store/sqlite/gates.sql"
SQLITE_SCHEMA = "store/sqlite/migrations/002_gates.sql"
POSTGRES_SCHEMA = "store/postgres/migrations/002_gates.sql"

LIMITED = (
    Mutant(
        name="one too many passes",
        storm=RUSHES,
        promise="P5",
        breaks="a limit or a rate lets one more pass than it says",
        noticed=(CONCURRENT, RATED),
        sqlite=(Change("dayjob.store.admission:free_tokens", "limit) - taken", "limit) + 1 - taken"),),
        postgres=(
            Change(
                POSTGRES_SCHEMA,
                "ELSE greatest(CASE WHEN g.kind = 'breaker' THEN 1 ELSE",
                "ELSE greatest(1 + CASE WHEN g.kind = 'breaker' THEN 1 ELSE",
            ),
        ),
        redis=(
            Change(
                f"{LUA}/shared/admit.lua",
                "if taken < limit then return limit - taken end",
                "if taken <= limit then return limit - taken + 1 end",
            ),
        ),
    ),
    Mutant(
        name="a rate forgets its starts early",
        storm=RUSHES,
        promise="P5",
        breaks="a start counts for half of the time that it is to count for",
        noticed=(RATED,),
        sqlite=(
            Change(
                SQLITE_GATES,
                "ends = ?2 + (\n    SELECT coalesce(g.set_per, g.per) FROM",
                "ends = ?2 + (\n    SELECT coalesce(g.set_per, g.per) / 2 FROM",
            ),
        ),
        postgres=(
            Change(
                POSTGRES_SCHEMA,
                "moment + (coalesce(g.said_per, g.per) * 1000000)::bigint FROM dayjob.gate",
                "moment + (coalesce(g.said_per, g.per) * 500000)::bigint FROM dayjob.gate",
            ),
        ),
        redis=(
            Change(
                f"{LUA}/shared/admit.lua",
                "local per = floor((gate[4] and gate[5] or gate[2]) * 1000000)",
                "local per = floor((gate[4] and gate[5] or gate[2]) * 500000)",
            ),
        ),
    ),
    Mutant(
        name="who comes back keeps tokens",
        storm=RUSHES,
        promise="P5",
        breaks="a job that failed, was given back or was taken from the dead leaves its limits' tokens where they were",
        noticed=(LOST, DRAINED),
        sqlite=(
            Change(
                SQLITE_SCHEMA,
                "    ; DELETE FROM dayjob_token WHERE holder = +OLD.entry AND substr(gate, 1, 2) <> 'o:'\n",
                "",
            ),
        ),
        postgres=(
            Change(POSTGRES_SCHEMA, "t.until IS NULL AND (t.kind <> 'order' OR ends)", "t.until IS NULL AND ends"),
        ),
        redis=(
            Change(
                f"{LUA}/shared/gating.lua",
                "if for_good or sub(name, 1, 1) ~= 'o' or (anew and name ~= turn) then",
                "if for_good then",
            ),
        ),
    ),
    Mutant(
        name="a free token wakes nobody",
        storm=RUSHES,
        promise="P5",
        breaks="who waits for a limit is not looked at when one of its tokens comes free",
        noticed=(LOST, DRAINED),
        sqlite=(
            Change(
                SQLITE_SCHEMA,
                "    INSERT INTO dayjob_freed (gate) SELECT t.gate FROM dayjob_token AS t WHERE t.holder = +OLD.entry\n"
                "        AND EXISTS",
                "    INSERT INTO dayjob_freed (gate) SELECT t.gate FROM dayjob_token AS t WHERE t.holder = +OLD.entry\n"
                "        AND false AND EXISTS",
            ),
        ),
        postgres=(Change(POSTGRES_SCHEMA, "    PERFORM dayjob.wake_up(freed, false);\n", ""),),
        redis=(Change(f"{LUA}/shared/gating.lua", "  many('SADD', '@freed', some)\n", ""),),
    ),
    Mutant(
        name="a key is free when its job starts",
        storm=RUSHES,
        promise="P5",
        breaks="a key that is to be held until its job is done lets the next one in as soon as that one runs",
        noticed=(UNIQUE,),
        sqlite=(
            Change(
                SQLITE_GATES,
                "DELETE FROM dayjob_key WHERE until = 'started' AND (hash, id)",
                "DELETE FROM dayjob_key WHERE until <> 'expired' AND (hash, id)",
            ),
            Change(
                SQLITE_GATES,
                "EXISTS (SELECT 1 FROM dayjob_key WHERE until = 'started')",
                "EXISTS (SELECT 1 FROM dayjob_key)",
            ),
        ),
        postgres=(
            Change(
                POSTGRES_SCHEMA,
                "EXISTS (SELECT 1 FROM dayjob.unique_key WHERE until = 'started')",
                "EXISTS (SELECT 1 FROM dayjob.unique_key)",
            ),
            Change(POSTGRES_SCHEMA, "AND k.until = 'started' FOR UPDATE", "AND k.until <> 'expired' FOR UPDATE"),
        ),
        redis=(
            Change(
                f"{LUA}/shared/start.lua",
                "if gating[1] and gating[1][3] == 'started' then",
                "if gating[1] and gating[1][3] ~= 'expired' then",
            ),
        ),
    ),
    Mutant(
        name="a key outlives its job",
        storm=RUSHES,
        promise="P5",
        breaks="a job that has ended keeps its key: whoever comes later is told of it, and no job is stored",
        noticed=(TOLD,),
        sqlite=(
            Change(
                SQLITE_SCHEMA,
                "; DELETE FROM dayjob_key WHERE substr(OLD.gating, 1, 9) = '{\"unique\"'\n        AND",
                "; DELETE FROM dayjob_key WHERE false\n        AND",
            ),
        ),
        postgres=(Change(POSTGRES_SCHEMA, "    IF ends THEN\n        DELETE", "    IF false THEN\n        DELETE"),),
        redis=(
            Change(
                f"{LUA}/shared/gating.lua",
                "if for_good and gating[1] and gating[1][3] ~= 'expired' then",
                "if false then",
            ),
        ),
    ),
)
