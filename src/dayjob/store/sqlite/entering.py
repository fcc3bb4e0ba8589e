"""Enqueue of rows that have a key, a lane or gates, or that go to a queue with limits; in transactions of callers, too.

Written once, as scripts: on a caller's connection each statement runs by itself, on ours they are driven at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgspec

from dayjob.clock import SECOND
from dayjob.errors import JobExists, QueueClosed, QueueFull
from dayjob.states import WAITING
from dayjob.store.gating import Gating, QueueLimits, Unique
from dayjob.store.records import EXISTING, INSERTED, Enqueued, NewRow, Rows, Script, Statement
from dayjob.store.sqlite.changing import Stand, Waiting, regated, restand, turns_left
from dayjob.store.sqlite.lanes import LanesPart
from dayjob.store.sqlite.lines import gating_of, held_line, lane_of, limits_of, line_of, name_of
from dayjob.store.sqlite.part import chunked, decode, encode, text, with_rows

T = TypeVar("T")

_COLUMNS = 18


class _Holder(NamedTuple):
    """A job that holds a key; without a state it has left the live table, and there is nothing else of it."""

    id: str
    entry: int
    state: str | None
    created_at: int
    queue: str
    line: int | None
    place: int
    gating: Gating | None


class Regated(NamedTuple):
    """A waiting job that was given another gating. `job`: what it was before."""

    job: Waiting
    entry: int
    priority: int
    stand: Stand
    gating: Gating


class _Fresh(NamedTuple):
    """A row that is to be stored, and where it stands."""

    row: NewRow
    values: tuple[Any, ...]
    line: int | None


class _Call:
    """One call of enqueue: what is known so far, and what is still to be written."""

    def __init__(self, jobs: Sequence[NewRow], now: int) -> None:
        self.jobs, self.now = jobs, now
        self.known: set[str] = set()
        self.holders: dict[str, _Holder] = {}
        self.touched: set[str] = set()
        self.limits: dict[str, QueueLimits] = {}
        self.depths: dict[str, int] = {}
        self.fresh: list[_Fresh] = []


class EnteringPart(LanesPart):
    """Keys, lanes, gates and queue limits, as a row meets them."""

    def enter(self, connection: sqlite3.Connection, jobs: Sequence[NewRow], limited: bool, now: int) -> list[Enqueued]:
        """Enqueue on our own connection, in its transaction."""
        if any(job.gating is not None for job in jobs):
            connection.execute(self.gate_sql.mark_gated)
        return run(connection, self.entry_script(jobs, limited, now))

    def entry_script(self, jobs: Sequence[NewRow], limited: bool, now: int) -> Script[list[Enqueued]]:
        """Enqueue where a write lock is held already."""
        call = _Call(jobs, now)
        call.known.update((yield from self._json(self.gate_sql.known, text([job.id for job in jobs]))))
        hashes = [job.gating.unique.hash for job in jobs if job.gating is not None and job.gating.unique is not None]
        if hashes:
            yield from self._look_up(call, hashes)
        if limited:
            found = yield from self._json(self.gate_sql.limits_of, text(list({job.queue for job in jobs})))
            call.limits = {queue: msgspec.convert(limits, QueueLimits) for queue, limits in found}
        answers: list[Enqueued] = []
        for job in jobs:
            answer = yield from self._enter_one(call, job)
            answers.append(answer)
        yield from self._flush(call)
        return answers

    def _enter_one(self, call: _Call, job: NewRow) -> Script[Enqueued]:
        if job.id in call.known:
            return EXISTING
        unique = None if job.gating is None else job.gating.unique
        if unique is not None:
            if unique.hash in call.touched:  # by a row before this one
                yield from self._flush(call)
                yield from self._look_up(call, [unique.hash])
            call.touched.add(unique.hash)
            holder = call.holders.get(unique.hash)
            if holder is not None:
                return (yield from self._conflict(call, job, unique, holder))
        refused, held = yield from self._limit(call, job)
        if refused is not None:
            return refused
        values = values_of(job, call.now)
        line = held_line(job.queue) if held else line_of(job.queue, job.gating)
        if line is not None and values[3] == "available":
            values = (*values[:3], "blocked", *values[4:])
        call.known.add(job.id)
        call.fresh.append(_Fresh(job, values, line))
        return INSERTED

    # -- keys --------------------------------------------------------------------------------------------------

    def _look_up(self, call: _Call, hashes: Sequence[str]) -> Script[None]:
        for name in hashes:
            call.holders.pop(name, None)
        for name, *holder, gating in (yield from self._json(self.gate_sql.holders, text(list(hashes)), call.now)):
            holder.append(None if gating is None else gating_of(gating))
            call.holders[name] = _Holder(*holder)

    def _conflict(self, call: _Call, job: NewRow, unique: Unique, holder: _Holder) -> Script[Enqueued]:
        """What becomes of *job*, whose key *holder* has."""
        if unique.on_conflict == "raise":
            return Enqueued("refused", JobExists(unique.key, holder.id), holder.id)
        if unique.on_conflict not in ("replace", "extend") or holder.state not in WAITING:
            return Enqueued("existing", id=holder.id)
        yield from self._flush(call)
        state, run_at, expires = self._time(job, unique, holder, call.now)
        base = int((yield Statement(self.gate_sql.highest))[0][0])
        if unique.on_conflict == "extend":
            stand = restand(holder, base + 1, state=state)
            yield Statement(self.gate_sql.extend_holder, (base + 1, stand.state, stand.place, run_at, holder.entry))
        else:
            gating = regated(holder.gating, job.gating)
            stand = restand(holder, base + 1, gating=gating, state=state)
            given = (run_at, job.payload, job.priority, expires, job.tags, job.meta, job.options)
            gates = (encode(gating).decode(), lane_of(gating), stand.line)
            changed = (base + 1, stand.state, stand.place, *given, *gates, holder.entry)
            yield Statement(self.gate_sql.replace_holder, changed)
            yield from self.regate([Regated(holder, base + 1, job.priority, stand, gating)])
        yield from self.take_turns(base)
        return Enqueued("replaced" if unique.on_conflict == "replace" else "extended", id=holder.id)

    @staticmethod
    def _time(job: NewRow, unique: Unique, holder: _Holder, now: int) -> tuple[str, int, int | None]:
        """State, time and expiry that *holder* gets from *job*, not put off beyond its latest."""
        values = values_of(job, now)
        state, run_at, expires = values[3], values[8], values[9]
        if unique.latest is not None:
            run_at = min(run_at, holder.created_at + int(unique.latest * SECOND))
            state = "scheduled" if run_at > now else "available"
        return state, run_at, expires

    # -- limits of queues --------------------------------------------------------------------------------------

    def _limit(self, call: _Call, job: NewRow) -> Script[tuple[Enqueued | None, bool]]:
        """The refusal of *job* by its queue, if any, and whether it is to be held back."""
        limits = call.limits.get(job.queue)
        if limits is None:
            return None, False
        if limits.closed == "refuse":
            return Enqueued("refused", QueueClosed(job.queue)), False
        if limits.max_depth is not None:
            if job.queue not in call.depths:
                call.depths[job.queue] = int((yield Statement(self.gate_sql.depth, (job.queue,)))[0][0])
            depth = call.depths[job.queue]
            if depth >= limits.max_depth:
                if limits.when_full != "drop_oldest" or not (yield from self._shed(call, job.queue)):
                    return Enqueued("refused", QueueFull(job.queue, depth, limits.max_depth)), False
            else:
                call.depths[job.queue] = depth + 1
        return None, limits.closed == "hold"

    def _shed(self, call: _Call, queue: str) -> Script[bool]:
        """The oldest waiting job of the lowest priority makes room."""
        yield from self._flush(call)
        found = yield Statement(self.gate_sql.oldest_waiting, (queue,))
        if not found:
            return False
        entry = int(found[0][0])
        call.touched.update(call.holders)  # it may have held one of the keys
        yield Statement(self.gate_sql.shed, (call.now, entry))
        yield Statement(self.gate_sql.forget_shed, (entry,))
        yield Statement(self.gate_sql.tally_shed, (call.now - call.now % (60 * SECOND), queue))
        return True

    # -- writing -----------------------------------------------------------------------------------------------

    def _flush(self, call: _Call) -> Script[None]:
        """Write what is to be stored: keys first, then jobs, gates and lines, then the places of lanes."""
        fresh, call.fresh = call.fresh, []
        if not fresh:
            return
        keys = [
            key_of(one.row, call.now)
            for one in fresh
            if one.row.gating is not None and one.row.gating.unique is not None
        ]
        if keys:
            yield Statement(self.gate_sql.take_keys, (text(keys),))
        base = int((yield Statement(self.gate_sql.highest))[0][0])
        ready = []
        for entry, (row, values, line) in enumerate(fresh, base + 1):
            gating = None if row.gating is None else encode(row.gating).decode()
            ready.append((entry, entry, *values, gating, lane_of(row.gating), line))
        for size, chunk in chunked(ready):
            yield Statement(with_rows(self.gate_sql.insert_gated, size, _COLUMNS), tuple(chain.from_iterable(chunk)))
        yield from self.name_gates([one.row for one in fresh])
        blocked = [
            (line, one.priority, entry)
            for entry, (one, values, line) in enumerate(fresh, base + 1)
            if values[3] == "blocked"
        ]
        yield from self.stand(blocked)
        if any(lane_of(one.row.gating) is not None for one in fresh):
            yield from self.take_turns(base)

    def name_gates(self, jobs: Sequence[Any]) -> Script[None]:
        """Keep the numbers that *jobs* say of their gates; the last one counts."""
        gates = {name_of(gate): limits_of(gate) for job in jobs if job.gating is not None for gate in job.gating.gates}
        if not gates:
            return
        batch = text([(name, *limits) for name, limits in sorted(gates.items())])
        news = [word(row[0]) for row in (yield Statement(self.gate_sql.add_gates, (batch,)))]
        if news:
            yield Statement(self.gate_sql.renew_ends, (text(news),))
            yield Statement(self.gate_sql.look_again, (text(news),))

    def stand(self, blocked: Sequence[tuple[int | None, int, int]]) -> Script[None]:
        """Jobs came to stand in lines, each as (line, priority, place)."""
        first: dict[int | None, tuple[int, int]] = {}
        for line, priority, place in blocked:
            first[line] = max(first.get(line, (priority, -place)), (priority, -place))
        if first:
            lines = [(line, priority, -place) for line, (priority, place) in first.items()]
            yield Statement(self.gate_sql.add_lines, (text(lines),))

    def regate(self, changed: Sequence[Regated]) -> Script[None]:
        """What else there is to write of jobs that were given gates: what they leave, and where they came to stand."""
        yield from self.name_gates(changed)
        left = [(one.entry, gate) for one in changed for gate in turns_left(one.job.gating, one.gating)]
        if left:
            yield Statement(self.gate_sql.end_turns, (text(left),))
            yield Statement(self.gate_sql.look_again, (text(sorted({gate for _, gate in left})),))
        # Whoever had a line before is led by the trigger `job_moved`.
        yield from self.stand(
            [
                (one.stand.line, one.priority, one.stand.place)
                for one in changed
                if one.job.line is None and one.stand.state == "blocked"
            ]
        )

    @staticmethod
    def _json(sql: str, *parameters: Any) -> Script[list[Any]]:
        """The one JSON array that *sql* returns."""
        found: Rows = yield Statement(sql, parameters)
        return list(decode(word(found[0][0])))


def key_of(row: Any, now: int) -> tuple[str, str, str, int | None]:
    """The key that *row*, which has one, takes now."""
    unique = row.gating.unique
    return unique.hash, row.id, unique.until, None if unique.ttl is None else now + int(unique.ttl * SECOND)


def values_of(job: NewRow, now: int) -> tuple[Any, ...]:
    """The columns after entry and place."""
    state = "available"
    run_at = now
    if job.run_at is not None or job.delay:
        run_at = job.run_at if job.run_at is not None else now + int((job.delay or 0) * SECOND)
        if run_at > now:
            state = "scheduled"
    expires = None if job.expires is None else now + int(job.expires * SECOND)
    return (
        job.id, job.queue, job.task, state, job.priority, job.payload, job.max_attempts, now, run_at, expires, job.tags,
        job.meta, job.options,
    )  # fmt: skip


def run(connection: sqlite3.Connection, script: Script[T]) -> T:
    """Drive *script* on a connection of ours."""
    try:
        statement = next(script)
        while True:
            statement = script.send(connection.execute(statement.sql, statement.parameters).fetchall())
    except StopIteration as end:
        answer: T = end.value
        return answer


def word(value: Any) -> str:
    """*value* as text, whatever the connection's `text_factory` makes of it."""
    return value.decode() if isinstance(value, (bytes, bytearray)) else str(value)
