"""Bugs in leases, claims and leadership."""

from __future__ import annotations

from tests.chaos.mutants.mutant import (
    BEATING,
    DRAINED,
    EXPLAINED,
    LOST,
    LUA,
    POSTGRES,
    POSTGRES_CLUSTER,
    REIGNS,
    SCHEMA,
    SPARED,
    SQLITE,
    SQLITE_CLUSTER,
    UNDISTURBED,
    Mutant,
)
from tests.chaos.mutation import Change
from tests.chaos.storms import (
    CALM,
    FREEZES,
    LATE_DEATHS,
    LOSSY,
    LOSSY_DEATHS,
    OUTAGES,
)

LEASES = (
    Mutant(
        name="who beats is rescued",
        storm=CALM,
        promise="P4",
        breaks="jobs are taken from workers whose lease has hardly begun",
        noticed=(UNDISTURBED,),
        sqlite=(
            Change(
                f"{SQLITE_CLUSTER}.rescue",
                "(self._live(live, beat_at, now),)",
                "(self._live(live, beat_at, now) + int(self.lease * 0.9 * SECOND),)",
            ),
        ),
        postgres=(
            Change(
                f"{POSTGRES_CLUSTER}.rescue",
                "(self._live_time(live, beat_at, now),)",
                "(self._live_time(live, beat_at, now) + int(self.lease * 0.9 * SECOND),)",
            ),
        ),
        redis=(Change(f"{LUA}/rescue.lua", "known[5] <= live)", "known[5] <= live + 1.8 * tonumber(ARGV[3]))"),),
    ),
    Mutant(
        name="an outage rescues everybody",
        storm=OUTAGES,
        promise="P4",
        breaks="time in which the store was away counts against those who could not beat",
        noticed=(SPARED,),
        sqlite=(
            Change(
                f"{SQLITE_CLUSTER}._live", "min(max(0, now - beat_at), int(self.lease / 2 * SECOND))", "now - beat_at"
            ),
        ),
        postgres=(
            Change(
                f"{POSTGRES_CLUSTER}._live_time",
                "min(max(0, now - beat_at), int(self.lease / 2 * SECOND))",
                "now - beat_at",
            ),
        ),
        redis=(
            Change(f"{LUA}/beat.lua", "live = live + min(max(0, now - beat_at), half)", "live = live + now - beat_at"),
            Change(
                f"{LUA}/rescue.lua",
                "min(max(0, now - tonumber(cluster[2] or 0)), tonumber(ARGV[3]))",
                "now - tonumber(cluster[2] or 0)",
            ),
        ),
    ),
    Mutant(
        name="who was given up claims on",
        storm=LOSSY_DEATHS,
        promise="P4",
        breaks="a worker that was given up and does not know it yet claims jobs that nobody takes from it any more",
        noticed=(LOST, DRAINED, EXPLAINED),
        sqlite=(
            Change(
                SQLITE,
                "EXISTS (SELECT 1 FROM dayjob_worker WHERE id = ?1 AND lost_at IS NULL)",
                "EXISTS (SELECT 1 FROM dayjob_worker WHERE id = ?1)",
            ),
        ),
        postgres=(
            Change(
                SCHEMA,
                "PERFORM 1 FROM dayjob.worker AS w WHERE w.id = by_worker AND w.lost_at IS NULL;",
                "PERFORM 1 FROM dayjob.worker AS w WHERE w.id = by_worker;",
            ),
        ),
        redis=(Change(f"{LUA}/turn.lua", "local stands = worker and worker[6] == 0", "local stands = worker"),),
    ),
    Mutant(
        name="a repeated claim claims anew",
        storm=LOSSY,
        promise="P4",
        breaks="a claim whose reply was lost brings other jobs when it is repeated, and nobody knows of the first ones",
        noticed=(LOST, DRAINED),
        sqlite=(
            Change(SQLITE, "(SELECT no FROM dayjob_lease WHERE worker = ?1 AND claim_no = ?2)", "nullif(?2, ?2)"),
            Change(SQLITE, "INSERT INTO dayjob_lease", "INSERT OR REPLACE INTO dayjob_lease"),
        ),
        postgres=(
            Change(
                SCHEMA,
                "IF FOUND THEN\n        claimed := -1;",
                "IF false THEN\n        claimed := -1;",
            ),
            Change(
                SCHEMA,
                "VALUES (by_worker, number, moment, claimed, all_ids, all_entries)\n",
                "VALUES (by_worker, number, moment, claimed, all_ids, all_entries)\n"
                "    ON CONFLICT ON CONSTRAINT lease_pkey DO UPDATE SET open = excluded.open, ids = excluded.ids, entries = excluded.entries\n",
            ),
        ),
        redis=(
            Change(
                f"{LUA}/turn.lua",
                "if claim_no ~= '' and stands and call('HEXISTS', '@lease:' .. me, claim_no) == 1 then",
                "if false then",
            ),
        ),
    ),
    Mutant(
        name="an unlisted batch stays",
        storm=LOSSY,
        promise="P4",
        breaks="jobs of a claim that reached the store too late are held for a worker that never heard of them",
        noticed=(LOST, DRAINED),
        sqlite=(Change(f"{SQLITE_CLUSTER}._release_unlisted", "if over:", "if False:"),),
        postgres=(Change(f"{POSTGRES_CLUSTER}.beat", "if over:", "if False:"),),
        redis=(Change(f"{LUA}/beat.lua", "if not listed[no] and claimed_at", "if false and claimed_at"),),
    ),
    Mutant(
        name="beats come late",
        storm=CALM,
        promise="P4",
        breaks="a worker beats at a third of the pace it should",
        noticed=(BEATING, UNDISTURBED),
        everywhere=(Change("dayjob.worker.leases:Leases._beat", "return self._every\n", "return self._every * 3\n"),),
    ),
    Mutant(
        name="jobs start after the lease",
        storm=FREEZES,
        promise="P2",
        breaks="a worker that stood still starts what it had claimed ahead, though its lease is over",
        noticed=(EXPLAINED,),
        everywhere=(
            Change("dayjob.worker.executor:Executor.begin", "and now <= self.lease_until and", "and"),
            Change("dayjob.worker.executor:Executor.begin", "elif now > self.lease_until:", "elif False:"),
        ),
    ),
    Mutant(
        name="the deposed keep time",
        storm=LATE_DEATHS,
        promise="P4",
        breaks="whoever led once goes on to rescue and stage under its old term",
        noticed=(REIGNS,),
        sqlite=(
            Change(
                SQLITE,
                "SELECT 1 FROM dayjob_cluster WHERE term = ? AND",
                "SELECT 1 FROM dayjob_cluster WHERE term >= ? AND",
            ),
        ),
        postgres=(
            Change(
                POSTGRES,
                "FROM dayjob.cluster WHERE term = $1 AND leader",
                "FROM dayjob.cluster WHERE term >= $1 AND leader",
            ),
            Change(f"{POSTGRES_CLUSTER}.rescue", "if reigning != term or", "if reigning < term or"),
        ),
        redis=(
            Change(
                f"{LUA}/shared/leads.lua",
                "call('HGET', META, 'term') ~= ARGV[2]",
                "tonumber(call('HGET', META, 'term') or 0) < tonumber(ARGV[2])",
            ),
        ),
    ),
    Mutant(
        name="everybody leads",
        storm=CALM,
        promise="P4",
        breaks="each beat is told that its worker leads",
        noticed=(REIGNS,),
        sqlite=(Change(f"{SQLITE_CLUSTER}.beat", "term if leader == worker.id else None", "term"),),
        postgres=(Change(f"{POSTGRES_CLUSTER}.beat", "term if leader == worker.id else None", "term"),),
        redis=(Change(f"{LUA}/beat.lua", "leader == id and digits(term) or ''", "digits(term)"),),
    ),
)
