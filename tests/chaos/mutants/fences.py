"""Bugs by which a stale write is taken."""

from __future__ import annotations

from tests.chaos.mutants.mutant import (
    ENDS_ONCE,
    EXITS,
    EXPLAINED,
    INVENTED,
    LOST,
    LUA,
    POSTGRES,
    REPLAYED,
    SQLITE,
    SQLITE_TURN,
    STALE,
    Mutant,
)
from tests.chaos.mutation import Change
from tests.chaos.storms import (
    SHORT,
    SHUTDOWNS,
    SLOW_FREEZES,
)

FENCES = (
    Mutant(
        name="a completion is not fenced",
        storm=SLOW_FREEZES,
        promise="P3",
        breaks="a job that was taken from its worker is completed by it all the same",
        noticed=(STALE, REPLAYED, ENDS_ONCE),
        sqlite=(
            Change(
                SQLITE,
                "FROM s CROSS JOIN dayjob_job AS j ON j.entry = s.entry\n"
                "WHERE j.id = s.id AND j.state = 'running' AND j.lease IN (SELECT no FROM dayjob_lease WHERE worker = ?)",
                "FROM s CROSS JOIN dayjob_job AS j ON j.id = s.id WHERE j.state = 'running' AND ? IS NOT NULL",
            ),
        ),
        postgres=(
            Change(
                POSTGRES,
                "WHERE j.id = s.id AND j.entry = s.entry AND (s.entry IN (\n"
                "        SELECT unnest(l.entries) FROM dayjob.lease AS l WHERE l.worker = $9 AND l.claim_no = ANY ($10::bigint[]))) IS TRUE",
                "WHERE j.id = s.id AND $10::bigint[] IS NOT NULL",
            ),
        ),
        redis=(
            Change(
                f"{LUA}/turn.lua",
                "if batch and entry == numbers[i] and batch.worker == me then",
                "if batch then",
            ),
        ),
    ),
    Mutant(
        name="a record is not fenced",
        storm=SLOW_FREEZES,
        promise="P3",
        breaks="progress and checkpoints are taken from a worker that lost the job",
        noticed=(STALE,),
        sqlite=(
            Change(
                SQLITE,
                "WHERE j.entry = ?1 AND j.id = ?2 AND j.state = 'running' AND l.worker = ?3\n\n-- name: set_progress",
                "WHERE j.id = ?2 AND ?1 + ?3 IS NOT NULL\n\n-- name: set_progress",
            ),
        ),
        postgres=(
            Change(
                POSTGRES,
                "WHERE j.id = $2::uuid AND j.entry = $3\n"
                "    AND EXISTS (SELECT 1 FROM dayjob.lease AS l WHERE l.worker = $1 AND l.open > 0 AND l.entries @> ARRAY[$3::bigint])\n",
                "WHERE j.id = $2::uuid AND $1::text || $3::bigint IS NOT NULL\n",
            ),
        ),
        redis=(
            Change(
                f"{LUA}/record.lua", "if entry ~= ARGV[4] or batch.worker ~= ARGV[2] then return 0 end", "", times=1
            ),
        ),
    ),
    Mutant(
        name="a refusal is not told",
        storm=SLOW_FREEZES,
        promise="P3",
        breaks="a completion that came too late is answered as if it had been written",
        noticed=(STALE, REPLAYED, ENDS_ONCE),
        sqlite=(Change(f"{SQLITE_TURN}._complete", "if matched < len(done):", "if False:"),),
        postgres=(
            Change(
                POSTGRES,
                "SELECT CASE WHEN count(*) < cardinality($2::uuid[]) THEN coalesce(array_agg(entry), '{}') END,",
                "SELECT CASE WHEN count(*) < 0 THEN coalesce(array_agg(entry), '{}') END,",
            ),
        ),
        redis=(Change(f"{LUA}/turn.lua", "    else\n      insert(refused, i)\n    end", "    end"),),
    ),
    Mutant(
        name="a claim survives its completion",
        storm=SHORT,
        promise="P3",
        breaks="a settled job still runs for the store, so that it can be settled again",
        noticed=(INVENTED, REPLAYED, ENDS_ONCE, LOST),
        sqlite=(
            Change(
                f"{SQLITE_TURN}._complete",
                "connection.execute(self.sql.forget, (text([one.entry for one in done]),))",
                "pass",
            ),
        ),
        redis=(Change(f"{LUA}/turn.lua", "  unclaim(all, batch_of)\n", ""),),
    ),
    Mutant(
        name="a job keeps its entry",
        storm=SHUTDOWNS,
        promise="P3",
        breaks="a job that becomes available again has the number of its former claim",
        noticed=(EXPLAINED, STALE, ENDS_ONCE),
        sqlite=(
            Change(f"{SQLITE_TURN}._put_back", "(out.job.entry, base + number,", "(out.job.entry, out.job.entry,"),
        ),
        postgres=(
            Change(
                POSTGRES,
                "UPDATE dayjob.job AS j SET entry = nextval('dayjob.entry'),",
                "UPDATE dayjob.job AS j SET entry = j.entry,",
            ),
        ),
        redis=(Change(EXITS, "d[1] = entry - 1 + i\n", "d[1] = tonumber(x.entry)\n"),),
    ),
)
