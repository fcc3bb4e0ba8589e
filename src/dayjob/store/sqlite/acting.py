"""Cancel, retry, delete, edit: acting on many jobs at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from dayjob.clock import SECOND
from dayjob.states import State
from dayjob.store.exits import REMEMBERED
from dayjob.store.gating import Gating
from dayjob.store.records import FITS, Action, Cancel, Delete, Edit, Filter, Retry
from dayjob.store.sqlite.changing import regated, restand
from dayjob.store.sqlite.entering import Regated, key_of, run
from dayjob.store.sqlite.filters import where
from dayjob.store.sqlite.lines import gating_of, lane_of, line_of
from dayjob.store.sqlite.part import text
from dayjob.store.sqlite.turns import TurnPart

_KEY_IS_FREE = (
    " AND (gating IS NULL OR NOT EXISTS (SELECT 1 FROM {ns}_key AS k WHERE k.hash = json_extract(gating, '$.unique.hash')"
    " AND k.id <> {ns}_history.id AND (k.expires IS NULL OR k.expires > ?)))"
)


class _Candidate(NamedTuple):
    """A job that an action fits."""

    entry: int
    id: str
    state: str
    queue: str
    priority: int
    line: int | None
    place: int
    gating: Gating | None


class ActingPart(TurnPart):
    """The Jobs protocol's `act`."""

    def act(self, which: Filter, action: Action, *, limit: int = 1000, now: int | None = None) -> list[str]:
        live_states, done_states = FITS[type(action)]
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            live = self._candidates(connection, "job", which, live_states, limit, action, now)
            done = self._candidates(connection, "history", which, done_states, limit - len(live), action, now)
            match action:
                case Cancel():
                    self._cancel(connection, live, action, now)
                case Retry():
                    self._promote(connection, live, now)
                    revived = done = self._revive(connection, done, now)
                    while revived and len(live) + len(done) < limit:  # until none is left that is not kept from its key
                        more = self._candidates(
                            connection, "history", which, done_states, limit - len(live) - len(done), action, now
                        )
                        revived = self._revive(connection, more, now)
                        done = done + revived
                case Delete():
                    self._delete(connection, live, done, now)
                case Edit():
                    self._edit(connection, live, action, now)
        return [job.id for job in (*live, *done)]

    def _candidates(
        self,
        connection: sqlite3.Connection,
        table: str,
        which: Filter,
        states: Sequence[str],
        limit: int,
        action: Action,
        now: int,
    ) -> list[_Candidate]:
        """The jobs in *table* that the action fits, oldest first."""
        fitting = [state for state in states if which.states is None or State(state) in which.states]
        if not fitting or limit <= 0:
            return []
        condition, parameters = where(which, fitting)
        if isinstance(action, Cancel):
            condition += " AND cancelling = 0"
        if isinstance(action, Retry) and table == "history":
            condition += _KEY_IS_FREE.format(ns=self.db.namespace)
            parameters.append(now)
        stand = "line, place" if table == "job" else "NULL, 0"
        found = connection.execute(
            f"SELECT entry, id, state, queue, priority, {stand}, gating FROM {self.db.namespace}_{table} "
            f"WHERE {condition} ORDER BY entry LIMIT ?",
            (*parameters, limit),
        )
        return [
            _Candidate(entry, id, state, queue, priority, line, place, None if gating is None else gating_of(gating))
            for entry, id, state, queue, priority, line, place, gating in found
        ]

    def _cancel(self, connection: sqlite3.Connection, live: list[_Candidate], action: Cancel, now: int) -> None:
        running = [job.entry for job in live if job.state == "running"]
        waiting = [job.entry for job in live if job.state != "running"]
        if waiting:
            keep_until = None if action.keep is None else now + int(action.keep * SECOND)
            self.cancel_waiting(connection, waiting, action.reason, now, keep_until)
        if running:
            connection.execute(self.sql.ask_to_cancel, (text(running), action.reason))
            connection.execute(self.sql.bump_control)

    def cancel_waiting(
        self,
        connection: sqlite3.Connection,
        entries: Sequence[int],
        reason: str | None,
        now: int,
        keep_until: int | None,
    ) -> None:
        """Waiting jobs go to the history as cancelled."""
        batch = text(entries)
        connection.execute(self.sql.cancel_waiting, (batch, reason, now, keep_until))
        connection.execute(self.sql.forget, (batch,))

    def _promote(self, connection: sqlite3.Connection, live: list[_Candidate], now: int) -> None:
        if live:
            base = self.last_entry(connection)
            connection.execute(self.sql.promote, (text([job.entry for job in live]), base, now))
            if any(job.gating is not None for job in live):
                run(connection, self.take_turns(base))

    def _revive(self, connection: sqlite3.Connection, done: list[_Candidate], now: int) -> list[_Candidate]:
        """Put *done* back; of several that want one key only the first."""
        done = self._take_keys_anew(connection, done, now)
        if not done:
            return []
        base = self.last_entry(connection)
        batch, blocked = [], []
        for entry, job in enumerate(done, base + 1):
            line = line_of(job.queue, job.gating)
            batch.append((job.entry, lane_of(job.gating), line))
            if line is not None:
                blocked.append((line, job.priority, entry))
        connection.execute(self.sql.revive, (text(batch), base, now))
        self.erase_finished(connection, [job.entry for job in done])
        connection.execute(self.sql.drop_checkpoints, (text([job.id for job in done]),))
        run(connection, self.stand(blocked))
        if any(lane_of(job.gating) is not None for job in done):
            run(connection, self.take_turns(base))
        return done

    def _take_keys_anew(self, connection: sqlite3.Connection, done: list[_Candidate], now: int) -> list[_Candidate]:
        first: dict[str, _Candidate] = {}
        for job in done:
            if job.gating is not None and job.gating.unique is not None:
                first.setdefault(job.gating.unique.hash, job)
        if first:
            connection.execute(self.gate_sql.take_keys, (text([key_of(job, now) for job in first.values()]),))
        return [
            job
            for job in done
            if job.gating is None or job.gating.unique is None or first[job.gating.unique.hash] is job
        ]

    def _delete(self, connection: sqlite3.Connection, live: list[_Candidate], done: list[_Candidate], now: int) -> None:
        ids = [job.id for job in (*live, *done)]
        if ids:
            self.erase_finished(connection, [job.entry for job in done])
            connection.execute(self.sql.forget, (text([job.entry for job in live]),))
            self.forget_traces(connection, ids)
            connection.execute(self.sql.remember_gone, (text(ids), now + REMEMBERED))

    def _edit(self, connection: sqlite3.Connection, live: list[_Candidate], change: Edit, now: int) -> None:
        given = {name: getattr(change, name) for name in ("priority", "queue", "payload")}
        given["run_at"] = None if change.run_at is None else max(change.run_at, now)
        given = {name: value for name, value in given.items() if value is not None}
        state = None if change.run_at is None else "scheduled" if change.run_at > now else "available"
        stay: list[tuple[_Candidate, Gating | None]] = []  # none of those who take turns
        move: list[tuple[_Candidate, Gating | None]] = []
        for job in live:
            gating = None if change.gating is None else regated(job.gating, change.gating)
            if gating == (job.gating or Gating()):
                gating = None
            if gating is not None or given.keys() - {"payload"}:
                move.append((job, gating))
            elif given:
                stay.append((job, None))
        base = self.last_entry(connection) if stay or move else 0
        changed: list[Regated] = []
        for entry, (job, gating) in enumerate(stay + move, base + 1):
            stand = restand(job, entry, gating=gating, queue=change.queue, state=state, placed=entry > base + len(stay))
            columns = {**given, "entry": entry, "state": stand.state, "line": stand.line, "place": stand.place}
            if gating is not None:
                columns["gating"] = None if gating == Gating() else text(gating)
                columns["lane"] = lane_of(gating)
                changed.append(Regated(job, entry, columns.get("priority", job.priority), stand, gating))
            sets = ", ".join(f"{name} = ?" for name in columns)
            statement = f"UPDATE {self.db.namespace}_job SET {sets} WHERE entry = ?"
            connection.execute(statement, (*columns.values(), job.entry))
        if changed:
            connection.execute(self.gate_sql.mark_gated)
            run(connection, self.regate(changed))
        if any(gating is not None or job.gating is not None for job, gating in move):
            run(connection, self.take_turns(base + len(stay)))
