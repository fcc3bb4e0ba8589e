"""Beats, leadership, rescue, leaving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dayjob.clock import SECOND
from dayjob.states import Outcome
from dayjob.store.exits import UNLISTED, Held, given_up, lost
from dayjob.store.postgres.acts import ActsPart
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.part import encode
from dayjob.store.postgres.wire import Bigints
from dayjob.store.records import Beat, Gone, Rescued, Tally, WorkerInfo

_info = msgspec.json.Decoder(WorkerInfo).decode


class ClusterPart(ActsPart):
    """The Cluster protocol, and the rescue of the leader. All that changes leadership or liveness locks the cluster's row."""

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
            live, beat_at, term, leader, control, now = self._cluster(connection, now)
            known = connection.execute(self.sql.worker, (worker.id,)).fetchone()
            if known is not None and known[7] is not None:
                return Beat(now, lost=True)
            live = self._live_time(live, beat_at, now)
            connection.execute(
                self.sql.set_worker,
                (worker.id, worker.name, worker.solo, encode(worker), now, live + int(worker.expiry * SECOND)),
            )
            if not worker.solo and leader != worker.id and not self._stands(connection, leader, live):
                leader, term = worker.id, term + 1
            connection.execute(self.sql.set_cluster, (live, now, term, leader))
            over = connection.execute(self.sql.unlisted, (worker.id, Bigints(held), now - UNLISTED, claims)).fetchall()
            if over:
                self._take_leases(connection, worker.id, [row[0] for row in over], None, now, orderly=True)
            counts = [(one.queue, one.name, float(one.count)) for one in tallies]
            counts += [(one.queue, f"busy:{one.name}", one.busy) for one in tallies if one.busy]
            self.add_tallies(connection, now, counts)
            cancelled = connection.execute(self.sql.cancelled_of, (worker.id,)).fetchall()
            paused = frozenset(row[0] for row in connection.execute(self.sql.paused).fetchall())
        return Beat(now, False, tuple(cancelled), paused, control, term if leader == worker.id else None)

    def _cluster(self, connection: Connection, now: int | None) -> tuple[int, int, int, str | None, int, int]:
        """(live time, its stamp, term, leader, control, now), locked."""
        row = connection.execute(self.sql.cluster, (self.db.at(now),)).fetchone()
        assert row is not None
        live, beat_at, term, leader, control, now = row
        return live, beat_at, term, leader, control, int(now)

    def _live_time(self, live: int, beat_at: int, now: int) -> int:
        """Live time at *now*: time without any beat counts up to half an expiry, the rest was an outage."""
        return int(live + min(max(0, now - beat_at), int(self.lease / 2 * SECOND)))

    def _stands(self, connection: Connection, leader: str | None, live: int) -> bool:
        if leader is None:
            return False
        row = connection.execute(self.sql.worker, (leader,)).fetchone()
        return row is not None and row[7] is None and row[6] > live

    def _take_leases(
        self,
        connection: Connection,
        worker: str,
        claims: Sequence[int] | None,
        how: str | None,
        now: int,
        *,
        orderly: bool,
        solo: bool = False,
    ) -> list[Rescued]:
        """End leases of *worker* (None: all), with what still runs under them."""
        numbers = None if claims is None else Bigints(claims)
        held, claim_of = [], {}
        for row in connection.execute(self.sql.jobs_of_leases, (worker, numbers)).fetchall():
            job = Held(*row[:11])
            held.append(job)
            claim_of[job.entry] = row[11]
        outcome = given_up(len(held), orderly=orderly, solo=solo)
        exits = [lost(job, now, outcome, how) for job in held]
        for out in exits:
            out.settlement.claim_no = claim_of[out.job.entry]
        self._with_days(connection, worker, exits, now)
        connection.execute(self.sql.drop_leases, (worker, numbers))
        return [
            Rescued(
                job.id, job.entry, job.task, job.queue, worker, out.state,
                job.crashes + (outcome is Outcome.CRASHED), out.reason,
            )
            for job, out in zip(held, exits, strict=True)
        ]  # fmt: skip

    def _with_days(self, connection: Connection, worker: str, exits: Sequence[Any], now: int) -> None:
        ended = [out.settlement for out in exits if out.state.terminal]
        if ended:
            self._add_days(connection, ended, now)
        self.leave_claims(connection, worker, exits, now)

    def _give_up(
        self, connection: Connection, row: tuple[Any, ...], how: str | None, now: int, *, orderly: bool = False
    ) -> Gone:
        worker = row[0]
        orderly = orderly or row[8]
        how = None if orderly else how
        taken = self._take_leases(connection, worker, None, how, now, orderly=orderly, solo=bool(row[2]))
        # Jobs whose rows somebody holds at this moment are left: then the worker stays, too, for the sweep to find them.
        dropped = orderly and connection.execute(self.sql.drop_worker, (worker,)).rowcount
        if not dropped and row[7] is None:
            connection.execute(self.sql.lose_worker, (worker, now, orderly))
        connection.execute(self.sql.end_leader, (worker,))
        return Gone(_info(row[3]), row[5], taken)

    def leave(self, worker: str, *, death: str | None = None, now: int | None = None) -> Gone | None:
        with self.db.write() as connection:
            self.take_turn(
                connection, self.db.at(now)
            )  # a claim of its own that is still under way comes before, and is taken, too
            *_, now = self._cluster(connection, now)
            row = connection.execute(self.sql.worker, (worker,)).fetchone()
            if row is None or row[7] is not None:
                return None
            return self._give_up(connection, row, death, now, orderly=death is None)

    def rescue(self, term: int, *, now: int | None = None) -> list[Gone] | None:
        with self.db.write() as connection:
            self.take_turn(connection, self.db.at(now))
            live, beat_at, reigning, leader, _, now = self._cluster(connection, now)
            if reigning != term or leader is None:
                return None
            expired = connection.execute(self.sql.expired_workers, (self._live_time(live, beat_at, now),)).fetchall()
            gone = [self._give_up(connection, row, "no beat before its lease ran out", now) for row in expired]
        return [one for one, row in zip(gone, expired, strict=True) if one.jobs or row[7] is None]

    def pause(self, queue: str, paused: bool, *, now: int | None = None) -> bool:
        with self.db.write() as connection:
            changed = connection.execute(self.sql.pause if paused else self.sql.resume, (queue,)).rowcount > 0
            if changed:
                connection.execute(self.sql.wake_gate, ("paused", queue))
                connection.execute(self.sql.bump_control)
        return changed
