"""Settle, stage, claim: the hot path.

A turn is one round trip: the settlements commit first, by themselves and durably; the claim follows under the lock that
claims take turns with, which no disk is waited for; what was claimed is read last. A crash in between loses nothing: a
claim repeated under its number finds its batch, and a settlement that was applied is refused the second time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg

from dayjob.states import EFFECTS, Outcome, State
from dayjob.store.exits import Exit, Held, begun, exit_of, finished, first_of_each, returned
from dayjob.store.postgres.database import Connection, Database
from dayjob.store.postgres.flight import Flight, Freight
from dayjob.store.postgres.floors import Answer, Floors, Question
from dayjob.store.postgres.part import Part, encode, uuids
from dayjob.store.postgres.wire import Bigints, Blobs, Uuids, plain, words
from dayjob.store.records import Claimed, Settlement, Turn, Want


class TurnPart(Part):
    """The Jobs protocol's `turn`, and the exits that rescue and leave share with it."""

    def __init__(self, db: Database, lease: float) -> None:
        super().__init__(db, lease)
        self.floors = Floors()
        self.gated = False
        """Whether the last claim saw jobs that wait at a gate, or limits: then what is settled may let in what is claimed next."""
        self.ears_open = (0.0, 0)
        """When a claim last told who listens, and what it told (see `signals`)."""

    def turn(
        self,
        worker: str,
        claim_no: int | None = None,
        settlements: Sequence[Settlement] = (),
        wants: Sequence[Want] = (),
        *,
        now: int | None = None,
    ) -> Turn:
        assert claim_no is not None or not wants, "a claim needs its number"
        now = self.db.at(now)
        turn = Turn(0, [], [], [], 0, None, False)
        with self.db.session() as connection:
            if settlements:
                settlements = self._prepare(connection, worker, settlements, turn.refused)
            if not settlements:
                self._claim(connection, worker, claim_no, wants, now, turn)
            elif self.db.pooled or self.gated or any(one.outcome is not Outcome.COMPLETED for one in settlements):
                self._settle(connection, worker, settlements, now, turn)
                self._claim(connection, worker, claim_no, wants, now, turn)
            else:
                self._exchange(connection, worker, claim_no, settlements, wants, now, turn)
        return turn

    def _exchange(
        self,
        connection: Connection,
        worker: str,
        claim_no: int | None,
        completed: Sequence[Settlement],
        wants: Sequence[Want],
        now: int | None,
        turn: Turn,
    ) -> None:
        """Completions and a claim side by side, on two connections: neither has to know of the other, and the server
        works on both at once. Both are answered in the end, whatever becomes of one."""
        finish = self._finish_parameters(worker, completed, State.COMPLETED, None, now)
        flight = Flight(connection, "dayjob_finish", self.sql.finish, Freight.of(connection, finish))
        try:
            with self.db.session() as other:
                self._claim(other, worker, claim_no, wants, now, turn)
        finally:
            try:
                late = flight.land()
            except psycopg.errors.CheckViolation:  # the first jobs that go on a certain day
                self._settle(connection, worker, completed, now, turn)
                completed, late = (), None
        entries = None if late is None else [int(entry) for entry in late[1:-1].split(b",") if entry]
        _add_refused(completed, entries, turn.refused)
        if self.gated and wants and not turn.claimed:  # it waits since this claim, perhaps for what these had
            self._claim(connection, worker, claim_no, wants, now, turn)

    # -- settle ------------------------------------------------------------------------------------------------

    def _prepare(
        self,
        connection: Connection,
        worker: str,
        settlements: Sequence[Settlement],
        refused: list[tuple[str, int]],
    ) -> list[Settlement]:
        """In the order of their ids (so that no two writers wait for each other), each with its claim."""
        if len({one.entry for one in settlements}) < len(settlements):
            settlements = first_of_each(settlements, refused)
        lost = [one for one in settlements if one.claim_no is None]
        if lost:
            entries = Bigints(one.entry for one in lost)
            with self.db.under_settings(connection):
                claims: dict[int, int] = dict(connection.execute(self.sql.claims_of, (worker, entries)).fetchall())
            for one in lost:
                one.claim_no = claims.get(one.entry)
            known = set(uuids(one.id for one in settlements if one.claim_no is not None))
            refused.extend((one.id, one.entry) for one in settlements if one.claim_no is None or one.id not in known)
            settlements = [one for one in settlements if one.claim_no is not None and one.id in known]
        return sorted(settlements, key=_id)

    def _settle(
        self, connection: Connection, worker: str, settlements: Sequence[Settlement], now: int | None, turn: Turn
    ) -> None:
        """Settlements of every kind, in a transaction of their own."""
        for last in (False, False, True):
            try:
                with connection.transaction():
                    self.db.tell(connection)
                    refused, settled = self._settle_all(connection, worker, settlements, now)
                break
            except psycopg.errors.CheckViolation:  # no partition for the day; at midnight not for the next one either
                if last:
                    raise
                self._add_days(connection, settlements, now)
        turn.refused += refused
        turn.settled += settled

    def _settle_all(
        self, connection: Connection, worker: str, settlements: Sequence[Settlement], now: int | None
    ) -> tuple[list[tuple[str, int]], list[tuple[str, int, State]]]:
        refused: list[tuple[str, int]] = []
        completed = [one for one in settlements if one.outcome is Outcome.COMPLETED]
        others = {one.entry: one for one in settlements if one.outcome is not Outcome.COMPLETED}
        # All are locked at once, in the order of their ids, before the first one is written: so does everybody.
        held = self._held(connection, worker, settlements) if others else []
        if completed:
            parameters = self._finish_parameters(worker, completed, State.COMPLETED, None, now)
            here = self.value(connection, self.sql.finish, parameters)
            _add_refused(completed, here, refused)
        held = [job for job in held if job.entry in others]
        here = {job.entry for job in held}
        refused.extend((one.id, one.entry) for one in others.values() if one.entry not in here)
        exits = [exit_of(job, others[job.entry]) for job in held]
        self.leave_claims(connection, worker, exits, now)
        return refused, [
            (out.job.id, out.job.entry, out.state)
            for out in exits
            if out.state is not EFFECTS[out.settlement.outcome].state
        ]

    def _held(self, connection: Connection, worker: str, settlements: Sequence[Settlement]) -> list[Held]:
        ids, entries = plain(one.id for one in settlements), Bigints(one.entry for one in settlements)
        claims = Bigints({one.claim_no for one in settlements if one.claim_no is not None})
        return [Held(*row) for row in connection.execute(self.sql.held, (ids, entries, worker, claims)).fetchall()]

    @property
    def _prepared(self) -> bool | None:
        return None if self.db.pooled else True

    @staticmethod
    def _finish_parameters(
        worker: str,
        done: Sequence[Settlement],
        state: State,
        reason: str | None,
        now: int | None,
        attempts: int = 1,
        crashes: int = 0,
    ) -> Sequence[Any]:
        good = state is State.COMPLETED
        claims = [one.claim_no or 0 for one in done]
        return (
            now,
            Uuids([one.id for one in done]),
            Bigints([one.entry for one in done]),
            Bigints(claims),
            Bigints([one.started_at for one in done]),
            Bigints([one.finished_at for one in done]),
            plain([one.keep for one in done]),
            Blobs([one.result for one in done] if good else [one.error for one in done]),
            worker,
            plain(set(claims)),
            str(state),
            reason,
            attempts,
            crashes,
        )

    def _add_days(self, connection: Connection, settlements: Sequence[Settlement], now: int | None) -> None:
        """The partitions that *settlements* may need; also a cancelled job's, which is kept for a day."""
        keeps = {one.keep for one in settlements if one.keep is not None} | {86_400.0}
        with self.db.under_settings(connection):
            connection.execute(self.sql.add_days, (now, list(keeps)))

    def leave_claims(self, connection: Connection, worker: str, exits: Sequence[Exit], now: int | None) -> None:
        """Every exit of a claim but success: attempts appended, terminal jobs to history, the others put back."""
        if not exits:
            return
        moment = self._moment(connection, now)
        self._add_attempts(connection, worker, begun(exits), moment)
        for (state, reason, outcome), group in finished(exits).items():
            effect = EFFECTS[outcome]
            parameters = self._finish_parameters(worker, group, state, reason, now, effect.attempt, effect.crashes)
            connection.execute(self.sql.finish, parameters)
        self._put_back(connection, worker, [out for out in exits if not out.state.terminal], moment)

    def _moment(self, connection: Connection, now: int | None) -> int:
        """*now*, asked of the server where it is not given; from here on floors wait for this transaction."""
        moment = int(self.value(connection, self.sql.settling))
        return moment if now is None else now

    def _add_attempts(self, connection: Connection, worker: str, exits: Sequence[Exit], now: int) -> None:
        if not exits:
            return
        ids = plain([out.job.id for out in exits])
        connection.execute(
            self.sql.add_attempts,
            (
                ids,
                plain([out.job.attempt + 1 for out in exits]),
                plain([out.job.round for out in exits]),
                words([str(out.settlement.outcome) for out in exits]),
                Bigints([out.settlement.started_at for out in exits]),
                Bigints([out.settlement.finished_at or now for out in exits]),
                words([out.settlement.reason for out in exits]),
                Blobs([out.settlement.error for out in exits]),
                worker,
            ),
        )
        trimmed = connection.execute(self.sql.trim_attempts, (ids,)).rowcount
        if trimmed:
            self.add_tallies(connection, now, [(exits[0].job.queue, "trimmed", trimmed)])

    def _put_back(self, connection: Connection, worker: str, exits: Sequence[Exit], now: int) -> None:
        if not exits:
            return
        backs = [returned(out, now) for out in exits]
        connection.execute(
            self.sql.put_back,
            (
                plain([out.job.id for out in exits]),
                Bigints([out.job.entry for out in exits]),
                plain([str(out.state) for out in exits]),
                plain([back.attempt for back in backs]),
                plain([back.crashes for back in backs]),
                plain([back.suspect for back in backs]),
                plain([back.parked for back in backs]),
                plain([back.run_at for back in backs]),
                words([back.reason for back in backs]),
                plain([back.begun for back in backs]),
            ),
        )
        claims = [out.settlement.claim_no for out in exits if out.settlement.claim_no is not None]
        connection.execute(self.sql.close_leases, (worker, Bigints(claims)))

    # -- claim -------------------------------------------------------------------------------------------------

    def _claim(
        self,
        connection: Connection,
        worker: str,
        claim_no: int | None,
        wants: Sequence[Want],
        now: int | None,
        turn: Turn,
    ) -> None:
        """Stage and claim, and read what was claimed."""
        asked = self.floors.ask()
        given = self._claim_parameters(worker, claim_no, now, wants, asked)
        if self.db.pooled or claim_no is None:
            # Behind a pooler only a BEGIN can say that the claim sees what is there when its turn comes.
            with self.db.under_settings(connection):
                told = connection.execute(self.sql.claim, given, prepare=self._prepared).fetchone()
                if claim_no is not None:
                    rows = connection.execute(self.sql.fetch, (worker, claim_no), binary=True).fetchall()
        else:
            with connection.pipeline():
                answer = connection.execute(self.sql.claim, given, prepare=True)
                found = connection.execute(self.sql.fetch, (worker, claim_no), prepare=True, binary=True)
            told, rows = answer.fetchone(), found.fetchall()
        assert told is not None
        turn.now, turn.control, turn.next_due, turn.suspects, claimed = told[:5]
        top, seen, levels, heard, more, writers, incarnation = told[5:]
        self.floors.learn(asked, Answer(turn.now, top, seen, levels, more, writers, incarnation))
        self.ears_open = (time.monotonic(), heard)
        self.gated = bool(heard & 4)
        if claimed:
            turn.claimed = [Claimed(*row) for row in rows]

    @staticmethod
    def _claim_parameters(
        worker: str, claim_no: int | None, now: int | None, wants: Sequence[Want], asked: Question
    ) -> Sequence[Any]:
        told = [
            {
                "queues": want.queues,
                "exclude": want.exclude if want.queues is None else (),
                "limit": max(want.limit, 0),
                "suspects": want.suspects,
                "id": None if want.id is None else next(iter(uuids([want.id])), _NOBODY),
            }
            for want in wants
        ]
        queues, priorities = [level[0] for level in asked.levels], [level[1] for level in asked.levels]
        return (
            worker, claim_no, now, encode(told).decode(), words(queues), plain(priorities), plain(asked.floors),
            asked.due, asked.seen, asked.check, asked.incarnation,
        )  # fmt: skip


def _add_refused(done: Sequence[Settlement], entries: Sequence[int] | None, refused: list[tuple[str, int]]) -> None:
    """From the answer of `finish`: who came too late."""
    if entries is not None:
        here = set(entries)
        refused.extend((one.id, one.entry) for one in done if one.entry not in here)


_NOBODY = "00000000-0000-0000-0000-000000000000"


def _id(one: Settlement) -> str:
    return one.id
