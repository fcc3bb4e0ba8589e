"""Beats, leadership, rescue, leaving; and the rest of the leader's upkeep."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.exits import KEEP_CANCELLED, REMEMBERED, UNLISTED, Held, given_up, lost
from dayjob.store.records import Beat, Bound, Gone, Rescued, Tally, WorkerInfo
from dayjob.store.sqlite.gates import GatesPart
from dayjob.store.sqlite.lines import PAUSED
from dayjob.store.sqlite.part import encode, rows, text

DAY = 86_400 * SECOND

_info = msgspec.json.Decoder(WorkerInfo).decode


class ClusterPart(GatesPart):
    """The Cluster and Upkeep protocols."""

    def beat(
        self,
        worker: WorkerInfo,
        held: Sequence[int],
        tallies: Sequence[Tally] = (),
        *,
        claims: int | None = None,
        now: int | None = None,
    ) -> Beat:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            known = connection.execute(self.sql.worker, (worker.id,)).fetchone()
            if known is not None and known[7] is not None:
                return Beat(now, lost=True)
            live, beat_at, term, leader, control = connection.execute(self.sql.cluster).fetchone()
            live = self._live(live, beat_at, now)
            connection.execute(
                self.sql.set_worker,
                (worker.id, worker.name, worker.solo, encode(worker), now, live + int(worker.expiry * SECOND)),
            )
            if not worker.solo and leader != worker.id and not self._stands(connection, leader, live):
                leader, term = worker.id, term + 1
            connection.execute(self.sql.set_cluster, (live, now, term, leader))
            self._release_unlisted(connection, worker.id, held, claims, now)
            for tally in tallies:
                self.add_tally(connection, now, tally.queue, tally.name, tally.count)
                if tally.busy:
                    self.add_tally(connection, now, tally.queue, f"busy:{tally.name}", tally.busy)
            cancelled = connection.execute(self.sql.cancelled_of, (worker.id,)).fetchall()
            paused = frozenset(row[0] for row in connection.execute(self.sql.paused))
        return Beat(now, False, tuple(cancelled), paused, control, term if leader == worker.id else None)

    def _live(self, live: int, beat_at: int, now: int) -> int:
        """Live time at *now*: time without any beat counts up to half an expiry, the rest was an outage."""
        return int(live + min(max(0, now - beat_at), int(self.lease / 2 * SECOND)))

    def _stands(self, connection: sqlite3.Connection, leader: str | None, live: int) -> bool:
        if leader is None:
            return False
        row = connection.execute(self.sql.worker, (leader,)).fetchone()
        return row is not None and row[7] is None and row[6] > live

    def _release_unlisted(
        self, connection: sqlite3.Connection, worker: str, held: Sequence[int], claims: int | None, now: int
    ) -> None:
        listed = set(held)
        over = [
            no
            for no, claim_no, claimed_at in connection.execute(self.sql.leases_of_worker, (worker,))
            if claim_no not in listed and claimed_at < now - UNLISTED and (claims is None or claim_no <= claims)
        ]
        if over:
            self._take_leases(connection, worker, over, None, now, orderly=True)

    def _take_leases(
        self,
        connection: sqlite3.Connection,
        worker: str,
        leases: Sequence[int],
        how: str | None,
        now: int,
        *,
        orderly: bool,
        solo: bool = False,
    ) -> list[Rescued]:
        """End *leases* of *worker*, with what still runs under them."""
        batch = text(leases)
        held = [Held(*row) for row in rows(connection, self.sql.jobs_of_leases, (batch,))]
        outcome = given_up(len(held), orderly=orderly, solo=solo)
        exits = [lost(job, now, outcome, how) for job in held]
        self.leave_claims(connection, worker, exits, now)
        connection.execute(self.sql.drop_leases, (batch,))
        return [
            Rescued(
                job.id,
                job.entry,
                job.task,
                job.queue,
                worker,
                out.state,
                job.crashes + (outcome is Outcome.CRASHED),
                out.reason,
            )
            for job, out in zip(held, exits, strict=True)
        ]

    def _give_up(
        self, connection: sqlite3.Connection, row: tuple[Any, ...], how: str | None, now: int, *, orderly: bool = False
    ) -> Gone:
        worker = row[0]
        leases = [lease[0] for lease in connection.execute(self.sql.leases_of_worker, (worker,))]
        taken = self._take_leases(connection, worker, leases, how, now, orderly=orderly, solo=bool(row[2]))
        if orderly:
            connection.execute(self.sql.drop_worker, (worker,))
        else:
            connection.execute(self.sql.lose_worker, (worker, now))
        connection.execute(self.sql.end_leader, (worker,))
        return Gone(_info(row[3]), row[5], taken)

    def leave(self, worker: str, *, death: str | None = None, now: int | None = None) -> Gone | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            row = connection.execute(self.sql.worker, (worker,)).fetchone()
            if row is None or row[7] is not None:
                return None
            return self._give_up(connection, row, death, now, orderly=death is None)

    def pause(self, queue: str, paused: bool, *, now: int | None = None) -> bool:
        with self.db.write() as connection:
            changed = connection.execute(self.sql.pause if paused else self.sql.resume, (queue,)).rowcount > 0
            if changed:
                connection.execute(self.sql.bump_control)
                connection.execute(self.gate_sql.look_again, (text([PAUSED + queue]),))
        return changed

    # -- upkeep ------------------------------------------------------------------------------------------------

    def _leads(self, connection: sqlite3.Connection, term: int) -> bool:
        return connection.execute(self.sql.leads, (term,)).fetchone() is not None

    def stage(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if not self._leads(connection, term):
                return None
            expired = rows(connection, self.sql.expired_waiting, (now, limit))
            if expired:
                keep_until = now + int(KEEP_CANCELLED * SECOND)
                self.cancel_waiting(connection, [entry for entry, _ in expired], "expired", now, keep_until)
                for queue, count in Counter(queue for _, queue in expired).items():
                    self.add_tally(connection, now, queue, "cancelled", count)
            gated = bool(connection.execute(self.sql.is_gated).fetchone()[0])
            staged = self.stage_batch(connection, now, limit - len(expired), gated)
            due = connection.execute(self.sql.next_due).fetchone()
        return staged + len(expired), None if due is None else due[0]

    def rescue(self, term: int, *, now: int | None = None) -> list[Gone] | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if not self._leads(connection, term):
                return None
            live, beat_at, *_ = connection.execute(self.sql.cluster).fetchone()
            expired = connection.execute(self.sql.expired_workers, (self._live(live, beat_at, now),)).fetchall()
            gone = []
            for (worker,) in expired:
                row = connection.execute(self.sql.worker, (worker,)).fetchone()
                gone.append(self._give_up(connection, row, "no beat before its lease ran out", now))
        return gone

    def prune(self, term: int, bounds: Sequence[Bound], *, limit: int = 1000, now: int | None = None) -> int | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if not self._leads(connection, term):
                return None
            pruned = self._prune(connection, self.sql.past_keeping, (now,), limit, now)
            for bound in bounds:
                if bound.task is None:
                    state, cancelled = str(bound.state), bound.state is State.CANCELLED
                    beyond = self.sql.beyond_count_unmoved if cancelled else self.sql.beyond_count
                    for (queue,) in connection.execute(self.sql.queues_in_history, (state,)).fetchall():
                        if bound.queue in (None, queue) and queue not in bound.exclude:
                            args = (state, queue, bound.count)
                            pruned += self._prune(connection, beyond, args, limit - pruned, now)
            for bound in bounds:
                if bound.task is not None:
                    args = (str(bound.state), bound.queue, bound.count)
                    pruned += self._prune(connection, self.sql.beyond_task_count, args, limit - pruned, now, bound.task)
            connection.execute(self.sql.prune_gone, (now,))
            connection.execute(self.sql.prune_records, (now,))
            connection.execute(self.sql.prune_samples, (now - 7 * DAY,))
            connection.execute(self.sql.prune_workers, (now - DAY,))
            connection.execute(self.gate_sql.prune_keys, (now,))
            connection.execute(self.gate_sql.prune_failures, (now,))
            connection.execute(self.gate_sql.prune_gates, (now,))
        return pruned

    def _prune(
        self, connection: sqlite3.Connection, statement: str, args: tuple[Any, ...], limit: int, now: int, *more: Any
    ) -> int:
        if limit <= 0:
            return 0
        found = rows(connection, statement, (*args, limit, *more))
        if not found:
            return 0
        self.erase_finished(connection, [entry for entry, _, _ in found])
        self.forget_traces(connection, [id for _, id, _ in found])
        recent = [id for _, id, finished_at in found if finished_at > now - REMEMBERED]
        if recent:
            connection.execute(self.sql.remember_gone, (text(recent), now + REMEMBERED))
        return len(found)

    def sample(self, term: int, *, now: int | None = None) -> bool | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if not self._leads(connection, term):
                return None
            minute = now - now % (60 * SECOND)
            for statement, state in (
                (self.sql.count_available, State.AVAILABLE),
                (self.sql.count_scheduled, State.SCHEDULED),
                (self.sql.count_blocked, State.BLOCKED),
                (self.sql.count_running, State.RUNNING),
            ):
                for queue, count in connection.execute(statement).fetchall():
                    connection.execute(self.sql.add_sample, (minute, queue, f"depth:{state}", count))
        return True
