"""Cancel, retry, delete, edit: acting on many jobs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dayjob.states import State
from dayjob.store.exits import KEEP_CANCELLED
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.filters import among, where
from dayjob.store.postgres.jobs import JobsPart
from dayjob.store.postgres.part import encode
from dayjob.store.postgres.wire import plain
from dayjob.store.records import FITS, Action, Cancel, Delete, Edit, Filter, Retry

_KEY_FREE = (
    "NOT EXISTS (SELECT 1 FROM {ns}.unique_key AS u WHERE u.hash = (j.gating #>> '{unique,hash}')::uuid "
    "AND u.id <> j.id AND (u.frees IS NULL OR u.frees > coalesce(?::bigint, {ns}.clock())))"
)
"""A finished job whose key another has cannot be retried."""


class Live(NamedTuple):
    """A live job that an action fits."""

    id: str
    running: bool


def _fitting(which: Filter, states: Sequence[str]) -> tuple[str, ...]:
    return tuple(state for state in states if which.states is None or State(state) in which.states)


class ActsPart(JobsPart):
    """The Jobs protocol's `act`."""

    def act(self, which: Filter, action: Action, *, limit: int = 1000, now: int | None = None) -> list[str]:
        live_states, done_states = FITS[type(action)]
        now = self.db.at(now)
        with self.db.write() as connection:
            connection.execute("SELECT set_config('lock_timeout', '1s', true)")  # claims wait for us
            # Finished jobs are looked for before the claims have to wait, and where only they fit nobody waits at all.
            live_states, done_states = _fitting(which, live_states), _fitting(which, done_states)
            ahead = (
                [] if which.ids is not None else self._finished_ones(connection, which, done_states, limit, action, now)
            )
            live: list[Live] = []
            if live_states:
                self.take_turn(connection, now)
                live = self._live(connection, which, live_states, limit, action)
            done = self._done(connection, which, done_states, limit - len(live), ahead, action, now)
            match action:
                case Cancel():
                    self._cancel(connection, live, action, now)
                case Retry():
                    done = self._retry(connection, [one.id for one in live], done, now)
                case Delete():
                    self._delete(connection, [one.id for one in live], done, now)
                case Edit():
                    self._edit(connection, [one.id for one in live], action, now)
        return [*(one.id for one in live), *done]

    def _live(
        self, connection: Connection, which: Filter, states: Sequence[str], limit: int, action: Action
    ) -> list[Live]:
        """The live jobs that the action fits, oldest first, locked."""
        if limit <= 0:
            return []
        condition = where(which, states, self.db.namespace, live=True)
        if isinstance(action, Cancel):
            condition.add("NOT j.cancelling")
        # Along the ids, which rise with time: to look for the least entries would read all that waits for each batch.
        table = among(which, f'"{self.db.namespace}".job', condition)
        first = f"SELECT j.id, j.entry FROM {table} WHERE {condition} ORDER BY j.id LIMIT {condition.parameter(limit)}"
        select = f"SELECT j.id::text, j.entry FROM ({first}) AS j ORDER BY j.entry"
        while True:
            found: dict[str, int] = dict(connection.execute(select, condition.values).fetchall())
            if not found:
                return []
            # Locked in the order of their ids, so that two who lock many never wait for each other.
            locked = {
                id: running
                for id, entry, state, running in connection.execute(self.sql.lock_live, (plain(found),)).fetchall()
                if found[id] == entry and ("running" if running else state) in states
            }
            if len(locked) == len(found):
                return [Live(id, locked[id]) for id in found]
            # Some were settled while we waited for them: look again, they may wait for their next attempt now.

    def _done(
        self,
        connection: Connection,
        which: Filter,
        states: Sequence[str],
        limit: int,
        ahead: Sequence[tuple[str, int]],
        action: Action,
        now: int | None,
    ) -> list[str]:
        """The finished jobs that the action fits, oldest first, locked; *ahead*: as they were found a moment ago."""
        while limit > 0:
            found = ahead[:limit] or self._finished_ones(connection, which, states, limit, action, now)
            if not found:
                break
            ids = plain({id for id, _ in found})
            locked = {(id, entry) for id, entry in connection.execute(self.sql.lock_finished, (ids,)).fetchall()}
            if locked.issuperset(found):
                return list(dict.fromkeys(id for id, _ in sorted(found, key=lambda one: one[1])))
            ahead = []  # Somebody else took some of them meanwhile: look again.
        return []

    def _finished_ones(
        self,
        connection: Connection,
        which: Filter,
        states: Sequence[str],
        limit: int,
        action: Action,
        now: int | None,
    ) -> list[tuple[str, int]]:
        """(id, entry) of finished jobs that match: those that finished first, by the index of their queue and state."""
        if not states or limit <= 0:
            return []
        namespace = f'"{self.db.namespace}"'
        condition = where(which, states, self.db.namespace, live=False)
        if isinstance(action, Retry):
            condition.add(_KEY_FREE, now)
        if which.ids is not None:
            table = among(which, f"{namespace}.history", condition)
            select = f"SELECT j.id::text, j.entry FROM {table} WHERE {condition} ORDER BY j.entry"
        else:
            most = condition.parameter(limit)
            sought = f"t.state = ANY ({condition.parameter(list(states))}::text[])"
            kinds = f"SELECT DISTINCT t.queue, t.state FROM {namespace}.total AS t WHERE {sought}"
            each = f"SELECT j.id, j.entry, j.finished_at FROM {namespace}.history AS j WHERE j.queue = k.queue AND j.state = k.state"
            first = f"{each} AND {condition} ORDER BY j.finished_at LIMIT {most}"
            select = f"SELECT j.id::text, j.entry FROM ({kinds}) AS k CROSS JOIN LATERAL ({first}) AS j ORDER BY j.finished_at"
        select = f"{select} LIMIT {condition.parameter(limit)}"
        return [(id, entry) for id, entry in connection.execute(select, condition.values).fetchall()]

    def _cancel(self, connection: Connection, live: Sequence[Live], action: Cancel, now: int | None) -> None:
        self.cancel_waiting(connection, [one.id for one in live if not one.running], action.reason, now, action.keep)
        running = [one.id for one in live if one.running]
        if running:
            connection.execute(self.sql.ask_to_cancel, (plain(running), action.reason))
            connection.execute(self.sql.bump_control)

    def cancel_waiting(
        self,
        connection: Connection,
        ids: Sequence[str],
        reason: str | None,
        now: int | None,
        keep: float | None = KEEP_CANCELLED,
    ) -> None:
        """Waiting jobs go to the history. The caller has the turn."""
        if ids:
            connection.execute(self.sql.add_days, (now, [0.0 if keep is None else keep]))
            connection.execute(self.sql.drop_ready, (plain(ids),))
            connection.execute(self.sql.cancel_waiting, (now, plain(ids), reason, keep))

    def _retry(self, connection: Connection, live: Sequence[str], done: Sequence[str], now: int | None) -> list[str]:
        """Those of *done* that are available again: some may have keys that others took."""
        if live:
            self.by_turn(connection, connection.execute(self.sql.promote, (now, plain(live))).fetchall(), now)
        if done:
            held = {row[0] for row in connection.execute(self.sql.retake_keys, (now, plain(done))).fetchall()}
            done = [id for id in done if id not in held]
        if done:
            self.by_turn(connection, connection.execute(self.sql.revive, (now, plain(done))).fetchall(), now)
            connection.execute(self.sql.erase_finished, (plain(done),))
            connection.execute(self.sql.drop_checkpoints, (plain(done),))
        return list(done)

    def _delete(self, connection: Connection, live: Sequence[str], done: Sequence[str], now: int | None) -> None:
        if live:
            connection.execute(self.sql.drop_ready, (plain(live),))
            connection.execute(self.sql.delete_live, (plain(live),))
        if done:
            connection.execute(self.sql.erase_finished, (plain(done),))
        self.forget_jobs(connection, [*live, *done], now)

    def _edit(self, connection: Connection, live: Sequence[str], change: Edit, now: int | None) -> None:
        gating = None if change.gating is None else encode(change.gating).decode()
        if change == Edit(gating=change.gating):  # who has it already stays where it is
            others = (
                [] if gating is None else connection.execute(self.sql.others_gated, (plain(live), gating)).fetchall()
            )
            live = [row[0] for row in others]
        if live:
            connection.execute(self.sql.drop_ready, (plain(live),))
            given = (now, plain(live), change.run_at, change.priority, change.queue, change.payload, gating)
            self.by_turn(connection, connection.execute(self.sql.edit, given).fetchall(), now)
