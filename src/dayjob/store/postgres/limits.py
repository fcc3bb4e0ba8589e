"""Gates, and the limits of queues: the Gates protocol but for breakers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dayjob.clock import SECOND
from dayjob.store.gating import UNCLAIMED, Gate, GateKind, GateRow, QueueLimits
from dayjob.store.postgres.database import Connection, Database
from dayjob.store.postgres.part import encode
from dayjob.store.postgres.upkeep import UpkeepPart
from dayjob.store.postgres.wire import words

ASK_AGAIN = 0.05
"""Seconds after which to ask for a token that comes free when somebody gives it back."""
SWEEPS = 20
"""Pages of gates that one sweep looks at, as long as it finds much to forget: keys that are used once come by thousands a second."""
_FIRST = "00000000-0000-0000-0000-000000000000"


class LimitsPart(UpkeepPart):
    """What is said of gates and queues, and the leader's sweep of them."""

    def __init__(self, db: Database, lease: float) -> None:
        super().__init__(db, lease)
        self._swept = _FIRST
        """Up to which gate the last sweep looked for those that nobody needs any more."""
        self._taken_back = _FIRST
        """Up to which gate it looked for tokens of jobs that nobody claims."""

    def _now(self, connection: Connection, now: int | None) -> int:
        """The turn is ours, and this is the time."""
        connection.execute(self.sql.take_turn)
        moment = self.db.at(now)
        return moment if moment is not None else int(self.value(connection, self.sql.settling))

    # -- the leader --------------------------------------------------------------------------------------------

    def admit(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        with self.db.session() as connection, self.db.under_settings(connection):
            asked = (term, self.db.at(now), limit, int(UNCLAIMED * SECOND), self._taken_back)
            told = connection.execute(self.sql.admit, asked).fetchone()
            assert told is not None
            now, admitted, opens, rest = told
            if now is None:
                return None
            self._taken_back = rest or _FIRST
            self._sweep(connection, now)
            owing = self.value(connection, self.sql.owing)
        if owing:
            with self.db.write() as connection:
                self.take_turn(connection, now)
                connection.execute(self.sql.make_room, (now,))
        return admitted, opens

    def _sweep(self, connection: Connection, now: int) -> None:
        """Forget what is over."""
        for _ in range(SWEEPS):
            row = connection.execute(self.sql.sweep_gates, (now, self._swept)).fetchone()
            assert row is not None
            self._swept = row[0] or _FIRST
            if not row[1]:
                break

    # -- gates -------------------------------------------------------------------------------------------------

    def gates(self, keys: Sequence[str] | None = None, *, limit: int = 1000, now: int | None = None) -> list[GateRow]:
        now = self.db.at(now) or self.db.now()
        with self.db.read() as connection:
            rows = connection.execute(
                self.sql.gates, (now, None if keys is None else words(list(keys)), limit)
            ).fetchall()
        return [
            GateRow(Gate(kind, key, tokens, per), taken, waiting, opens)
            for kind, key, tokens, per, taken, waiting, opens in rows
        ]

    def set_limit(
        self, kind: GateKind, key: str, limit: int | None, per: float = 0.0, *, now: int | None = None
    ) -> None:
        with self.db.write() as connection:
            moment = self._now(connection, now)
            connection.execute(self.sql.say_limit, (kind, key, limit, per))
            connection.execute(self.sql.restamp, (kind, key, moment))
            connection.execute(self.sql.park_surplus, (kind, key, moment))
            connection.execute(self.sql.wake_gate, (kind, key))

    def delay_gate(self, kind: GateKind, key: str, seconds: float, *, now: int | None = None) -> None:
        with self.db.write() as connection:
            moment = self._now(connection, now)
            connection.execute(self.sql.delay_gate, (kind, key, moment + int(seconds * SECOND)))
            connection.execute(self.sql.wake_gate, (kind, key))

    def take(self, gates: Sequence[Gate], holder: str, ttl: float, *, now: int | None = None) -> float | None:
        gates = list({(gate.kind, gate.key): gate for gate in gates}.values())
        kinds, keys = words([gate.kind for gate in gates]), words([gate.key for gate in gates])
        with self.db.write() as connection:
            moment = self._now(connection, now)
            if self.value(connection, self.sql.has_tokens, (holder, moment, kinds, keys)) >= len(gates):
                connection.execute(self.sql.prolong_tokens, (holder, moment, moment + int(ttl * SECOND)))
                return None
            connection.execute(self.sql.know_gates, (encode(gates).decode(),))
            free = [row[0] for row in connection.execute(self.sql.free_tokens, (kinds, keys, moment)).fetchall()]
            if min(free) <= 0:
                stamps = [row[0] for row in connection.execute(self.sql.opening, (kinds, keys, moment)).fetchall()]
                waits = [(stamp - moment) / SECOND for stamp in stamps if stamp is not None]
                soonest: float = min([*waits, ASK_AGAIN] if len(waits) < len(gates) else waits)
                return max(0.001, soonest)
            connection.execute(self.sql.take_tokens, (kinds, keys, holder, moment, moment + int(ttl * SECOND)))
            connection.execute(self.sql.wake_openings, (kinds, keys, moment))
        return None

    def give(self, holder: str, *, now: int | None = None) -> bool:
        with self.db.write() as connection:
            moment = self._now(connection, now)
            had = bool(self.value(connection, self.sql.still_holds, (holder, moment)))
            connection.execute(self.sql.give_tokens, (holder,))
        return had

    # -- queues ------------------------------------------------------------------------------------------------

    def limit_queue(
        self, queue: str, limits: QueueLimits | None, *, origin: Literal["code", "run"] = "run", now: int | None = None
    ) -> None:
        with self.db.write() as connection:
            moment = self._now(connection, now)
            if limits is None:
                connection.execute(self.sql.unlimit_queue, (queue, origin))
            else:
                connection.execute(
                    self.sql.limit_queue,
                    (
                        queue, origin, limits.max_depth, limits.when_full, limits.concurrency, limits.rate, limits.per,
                        limits.closed,
                    ),
                )  # fmt: skip
            connection.execute(self.sql.restamp_queue, (queue, moment))
            connection.execute(self.sql.wake_gate, ("held", queue))
            connection.execute(self.sql.bump_control)

    def queue_limits(
        self, *, origin: Literal["code", "run"] | None = None, now: int | None = None
    ) -> dict[str, tuple[QueueLimits, Literal["code", "run"]]]:
        with self.db.read() as connection:
            rows = connection.execute(self.sql.queue_limits, (origin,)).fetchall()
        return {
            queue: (QueueLimits(max_depth, when_full, concurrency, rate, per, closed), who)
            for queue, who, max_depth, when_full, concurrency, rate, per, closed in rows
        }
