"""The Gates protocol: looking at gates, setting them, and passing them without being a job."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from dayjob.clock import SECOND
from dayjob.store.admission import free_tokens, opens_at
from dayjob.store.gating import BreakerRow, Gate, GateKind, GateRow, QueueLimits, Report
from dayjob.store.sqlite.breakers import BreakersPart
from dayjob.store.sqlite.jobs import JobsPart
from dayjob.store.sqlite.lines import HELD, KINDS, LENT, WHOLE, limits_of, name_of
from dayjob.store.sqlite.part import encode, rows, text

_WAIT = 0.05
"""Seconds after which to ask again for a token that no time frees."""


class GatesPart(JobsPart, BreakersPart):
    """Gates and the limits of queues, as faces and callers of `app.limit` see them."""

    def admit(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            if connection.execute(self.sql.leads, (term,)).fetchone() is None:
                return None
            if not connection.execute(self.sql.is_gated).fetchone()[0]:
                return 0, None
            admitted = self.admission(connection, now, limit)
            aside = self.take_back_useless(connection, now)
            if aside is not None:
                admitted += self.admission(connection, now, max(1, limit - admitted), aside)
            return admitted, self.next_opening(connection)

    def gates(self, keys: Sequence[str] | None = None, *, limit: int = 1000, now: int | None = None) -> list[GateRow]:
        now = self.db.now() if now is None else now
        with self.db.read() as connection:
            if keys is None:
                names = rows(connection, self.gate_sql.gates_in_use, (limit,))
            else:
                names = [f"{kind}:{key}" for kind in KINDS for key in dict.fromkeys(keys)]
            found = []
            for name, tokens, per, shut, taken, waiting, ends in rows(
                connection, self.gate_sql.gate_rows, (text(names), now)
            ):
                if taken or waiting:
                    kind = KINDS[name[0]]
                    opens = None
                    if kind == "rate" and taken >= tokens:
                        opens = opens_at(sorted(ends), taken, tokens)
                    if shut is not None and shut > now:
                        opens = shut if opens is None else max(opens, shut)
                    gate = Gate(kind, name[2:], tokens, per / SECOND)
                    found.append(GateRow(gate, taken, waiting, opens))
        found.sort(key=lambda row: (row.gate.kind, row.gate.key))
        return found[:limit]

    # -- setting -----------------------------------------------------------------------------------------------

    def set_limit(
        self, kind: GateKind, key: str, limit: int | None, per: float = 0.0, *, now: int | None = None
    ) -> None:
        name = name_of(Gate(kind, key))
        with self.db.write() as connection:
            if limit is None:
                connection.execute(self.gate_sql.unset_gate, (name,))
            else:
                span = int(per * SECOND) if kind == "rate" else 0
                connection.execute(self.gate_sql.set_gate, (name, limit, span))
            connection.execute(self.gate_sql.renew_ends, (text([name]),))
            self.take_back(connection, rows(connection, self.gate_sql.admitted_at, (name,)))  # there may be fewer now
            self._act_at_once(connection, name)

    def delay_gate(self, kind: GateKind, key: str, seconds: float, *, now: int | None = None) -> None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            name = name_of(Gate(kind, key))
            connection.execute(self.gate_sql.shut_gate, (name, now + int(seconds * SECOND)))
            self.take_back(connection, rows(connection, self.gate_sql.admitted_at, (name,)))
            connection.execute(self.gate_sql.set_openings, (text([name]), now))

    def _act_at_once(self, connection: sqlite3.Connection, gate: str) -> None:
        """Those who wait at *gate* are looked at by the next turn, and every worker hears of it."""
        connection.execute(self.gate_sql.look_again, (text([gate]),))
        connection.execute(self.sql.bump_control)

    # -- tokens for others than jobs ---------------------------------------------------------------------------

    def take(self, gates: Sequence[Gate], holder: str, ttl: float, *, now: int | None = None) -> float | None:
        wanted = {name_of(gate): gate for gate in gates}
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            connection.execute(self.gate_sql.mark_gated)
            self.end_tokens(connection, now)
            batch = text([(name, *limits_of(gate)) for name, gate in sorted(wanted.items())])
            news = [row[0] for row in connection.execute(self.gate_sql.add_gates, (batch,)).fetchall()]
            if news:
                connection.execute(self.gate_sql.renew_ends, (text(news),))
                connection.execute(self.gate_sql.look_again, (text(news),))
            who = LENT + holder
            has = set(rows(connection, self.gate_sql.gates_of_holder, (who,)))
            wait = self._closed_for(connection, [name for name in wanted if name not in has], now)
            if wait is not None:
                return wait
            tokens = [
                (
                    name,
                    now + (gate_per(connection, self.gate_sql.per_of, name) if name[0] == "r" else int(ttl * SECOND)),
                )
                for name in wanted
                if name not in has
            ]
            connection.execute(self.gate_sql.lend_tokens, (text(tokens), who, now))
            connection.execute(self.gate_sql.prolong, (who, now + int(ttl * SECOND)))
        return None

    def _closed_for(self, connection: sqlite3.Connection, names: Sequence[str], now: int) -> float | None:
        """Seconds after which to ask again whether all of *names* are open; None when they are."""
        connection.execute(self.gate_sql.probe, (now,))
        closed: list[str] = []
        for name, tokens, shut, taken, breaker, _ in rows(
            connection, self.gate_sql.gate_states, (text(list(names)), now)
        ):
            if free_tokens(KINDS[name[0]], tokens, taken, bool(shut), breaker) <= 0:
                closed.append(name)
        if not closed:
            return None
        waits = []
        for name, tokens, _, shut, taken, _, ends in rows(connection, self.gate_sql.gate_rows, (text(closed), now)):
            opens = opens_at(sorted(ends), taken, tokens) if name[0] == "r" else None
            if name[0] == "b":
                opens = self.opening_of(connection, name[2:])
            opens = max(opens or 0, shut or 0)
            waits.append((opens - now) / SECOND if opens > now else _WAIT)
        return max(0.001, *waits)

    def give(self, holder: str, *, now: int | None = None) -> bool:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            who = LENT + holder
            has = connection.execute(self.gate_sql.has_tokens, (who, now)).fetchone()[0]
            connection.execute(self.gate_sql.let_go, (who,))
            gates = connection.execute(self.gate_sql.gates_of_holder, (who,)).fetchone()[0]
            connection.execute(self.gate_sql.give_back, (who,))
            connection.execute(self.gate_sql.look_again, (gates,))
        return bool(has)

    # -- queues ------------------------------------------------------------------------------------------------

    def limit_queue(
        self, queue: str, limits: QueueLimits | None, *, origin: Literal["code", "run"] = "run", now: int | None = None
    ) -> None:
        said = None if limits is None else encode(limits).decode()
        with self.db.write() as connection:
            connection.execute(
                self.gate_sql.say_limits_in_code if origin == "code" else self.gate_sql.say_limits, (queue, said)
            )
            connection.execute(self.gate_sql.forget_limits)
            connection.execute(self.gate_sql.mark_limited)
            in_force = connection.execute(self.gate_sql.rate_of_queue, (queue,)).fetchone()
            if in_force is not None:
                connection.execute(self.gate_sql.renew_starts, (int(in_force[0] * SECOND), WHOLE + queue))
            self._act_at_once(connection, HELD + queue)

    def queue_limits(
        self, *, origin: Literal["code", "run"] | None = None, now: int | None = None
    ) -> dict[str, tuple[QueueLimits, Literal["code", "run"]]]:
        with self.db.read() as connection:
            found: dict[str, tuple[QueueLimits, Literal["code", "run"]]] = {}
            for queue, code, run in connection.execute(self.gate_sql.all_limits):
                who: Literal["code", "run"] = origin or ("code" if run is None else "run")
                said = code if who == "code" else run
                if said is not None:
                    found[queue] = (msgspec.json.decode(said, type=QueueLimits), who)
            return found

    # -- breakers ----------------------------------------------------------------------------------------------

    def report(self, reports: Sequence[Report], *, now: int | None = None) -> list[BreakerRow]:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            changed = self.count_calls(connection, reports, now)
            self._act_on(connection, changed, now)
            return [self.breaker_row(connection, key, now) for key in changed]

    def set_breaker(self, key: str, state: Literal["closed", "open"], *, now: int | None = None) -> None:
        with self.db.write() as connection:
            now = self.db.now() if now is None else now
            changed = {key: self.switch(connection, key, state, now, None)}
            self._act_on(connection, changed, now)

    def breakers(self, *, now: int | None = None) -> list[BreakerRow]:
        now = self.db.now() if now is None else now
        with self.db.read() as connection:
            return self.breaker_rows(connection, now)

    def _act_on(self, connection: sqlite3.Connection, changed: dict[str, str], now: int) -> None:
        """What is available behind a breaker that opened is parked; who waits at one that let go is looked at."""
        for key, state in changed.items():
            if state == "open":
                self.take_back(connection, rows(connection, self.gate_sql.admitted_at, (f"b:{key}",)))
                connection.execute(self.sql.bump_control)
            connection.execute(self.gate_sql.look_again, (text([f"b:{key}"]),))
            connection.execute(self.gate_sql.set_openings, (text([f"b:{key}"]), now))


def gate_per(connection: sqlite3.Connection, statement: str, gate: str) -> int:
    """Microseconds after which a start at *gate*, a rate, is no longer counted."""
    return int(connection.execute(statement, (gate,)).fetchone()[0])
