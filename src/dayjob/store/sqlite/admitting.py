"""Admission: blocked jobs pass their gates, all or none, and what was admitted to no use is taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from dayjob.clock import SECOND
from dayjob.store.admission import UNBOUNDED, Head, Merge, Need, free_tokens
from dayjob.store.gating import UNCLAIMED
from dayjob.store.records import Want
from dayjob.store.sqlite.entering import EnteringPart, run
from dayjob.store.sqlite.lines import (
    HELD,
    KINDS,
    PAUSED,
    gating_of,
    held_line,
    lane_of,
    limits_of,
    line_of,
    name_of,
    names_of,
)
from dayjob.store.sqlite.part import decode, rows, text

_STRICT = 2
"""Of a strict lane one job passes, and the next stops."""
_AHEAD = 100
"""So many jobs a turn lets in at least: what is let in far ahead of its claim only makes tokens to count and to take back."""
_WAITING = 50
"""Lines that wait at one gate, read at a time."""
_NOWHERE = ""
"""Where lines wait that are to be looked at: no gate at all, which is always open."""
_LOOKED = 10_000
"""Admitted jobs that one sweep takes back."""

_heads: Callable[[str], list[tuple[int, list[Head[str]]]]] = msgspec.json.Decoder(
    list[tuple[int, list[Head[str]]]]
).decode


class _Look:
    """One admission under way."""

    def __init__(self, merge: Merge[int, str], limit: int, want: Want | None) -> None:
        self.merge, self.limit, self.want = merge, limit, want
        self.shut: dict[str, int] = {}
        self.served: dict[int, bool] = {}
        self.shown: dict[int, int] = {}
        self.read: dict[str, int] = {}
        self.reopened: set[str] = set()
        self.gates: dict[int, tuple[str, ...]] = {}
        self.strict: dict[int, tuple[str, ...]] = {}
        self.said: dict[str, tuple[int, int]] = {}


class AdmittingPart(EnteringPart):
    """What a turn and the leader's sweep do about gates."""

    def admission(
        self,
        connection: sqlite3.Connection,
        now: int,
        limit: int = 1000,
        aside: Collection[int] = (),
        want: Want | None = None,
    ) -> int:
        """Admit up to *limit* jobs; how many passed. With *want* no more of its queues than it takes, and a few."""
        self.end_tokens(connection, now)
        admitted = 0
        for first in (True, False):  # who comes in from a queue that was closed finds the gates in the second round
            enough = limit if want is None else min(limit, max(_AHEAD, want.limit))
            found = connection.execute(self.gate_sql.pending, (now, limit, enough + 1)).fetchone()
            gates, lines = decode(found[0]), decode(found[1])
            if not gates and not lines:
                break
            look = _Look(Merge({}, limit - admitted, aside, enough), enough, want)
            passed, again = self._admit(connection, look, gates, lines, now, first)
            admitted += passed
            if not again or admitted >= limit:
                break
        return admitted

    def end_tokens(self, connection: sqlite3.Connection, now: int) -> None:
        """Tokens whose time is over are free."""
        gates = connection.execute(self.gate_sql.ended, (now,)).fetchone()[0]
        if gates != "[]":
            connection.execute(self.gate_sql.end_tokens, (now,))
            connection.execute(self.gate_sql.look_again, (gates,))

    def next_opening(self, connection: sqlite3.Connection) -> int | None:
        """The stamp at which time opens the next gate at which somebody waits."""
        opening = connection.execute(self.gate_sql.next_opening).fetchone()
        return None if opening is None else int(opening[0])

    def more_to_look_at(self, connection: sqlite3.Connection) -> bool:
        """Whether lines are left that were not looked at."""
        return bool(connection.execute(self.gate_sql.more_to_look_at).fetchone()[0])

    def _admit(
        self,
        connection: sqlite3.Connection,
        look: _Look,
        gates: Sequence[str],
        lines: Sequence[tuple[int, int, int]],
        now: int,
        first: bool,
    ) -> tuple[int, bool]:
        limit, enough = look.merge.limit, look.limit
        paused, held = (decode(names) for names in connection.execute(self.gate_sql.paused_or_closed).fetchone())
        look.shut = {PAUSED + queue: 0 for queue in paused} | {HELD + queue: 0 for queue in held}
        opened = [gate for gate in gates if gate.startswith(HELD) and gate not in look.shut]
        passed = sum(self._open_held(connection, gate.removeprefix(HELD), limit) for gate in opened)
        if first and opened:  # nobody takes a token before those
            return passed, True
        open_gates = self._open(connection, look, [gate for gate in gates if gate not in opened], now)
        self._show(
            connection,
            look,
            [line[0] for line in lines[:enough]],
            max(2, min(64, enough // max(1, len(lines)) + 2)),
            now,
        )
        if len(lines) > enough:
            look.merge.free[_NOWHERE], look.read[_NOWHERE] = UNBOUNDED, enough
            look.merge.wait(_NOWHERE, *lines[enough][1:])
        if open_gates:
            each = max(2, min(_WAITING, enough // len(open_gates)))
            self._read(connection, look, open_gates, each, now)
        if first and look.reopened:
            return sum(self._open_held(connection, queue, limit) for queue in sorted(look.reopened)), True
        while (need := look.merge.run()) is not None:
            self._answer(connection, look, need, now)
        self._write(connection, look, [gate for gate in gates if gate not in opened], now)
        passed += sum(self._open_held(connection, queue, limit) for queue in sorted(look.reopened))
        return passed + len(look.merge.admitted), bool(opened or look.reopened)

    # -- what the merge is shown -------------------------------------------------------------------------------

    def _answer(self, connection: sqlite3.Connection, look: _Look, need: Need[int, str], now: int) -> None:
        if need.line is not None:
            self._show(connection, look, [need.line], min(look.limit, max(2, look.shown[need.line])), now)
        elif need.gate is not None:
            self._read(connection, look, [need.gate], _WAITING, now)

    def _open(self, connection: sqlite3.Connection, look: _Look, gates: Iterable[str], now: int) -> list[str]:
        """Learn how many may pass *gates*; those of them that are open."""
        names = [gate for gate in dict.fromkeys(gates) if gate not in look.merge.free]
        real = [gate for gate in names if gate[0] in KINDS]
        look.merge.free.update((gate, look.shut.get(gate, UNBOUNDED)) for gate in names)
        if real:
            if any(gate[0] == "b" for gate in real):
                connection.execute(self.gate_sql.probe, (now,))
            for gate, limit, shut, taken, breaker, known in rows(
                connection, self.gate_sql.gate_states, (text(real), now)
            ):
                if not known and gate in look.said:
                    limit = look.said[gate][0] if limit is None else limit
                    connection.execute(self.gate_sql.recall_gates, (text([(gate, *look.said[gate])]),))
                look.merge.free[gate] = free_tokens(KINDS[gate[0]], limit or 0, taken, bool(shut), breaker)
        return [gate for gate in names if look.merge.free[gate] > 0]

    def _read(self, connection: sqlite3.Connection, look: _Look, gates: Sequence[str], each: int, now: int) -> None:
        """Show the merge the next lines that wait at each of *gates*, which are as far."""
        start = look.read.get(gates[0], 0)
        wide = max((min(look.limit, look.merge.free[gate]) for gate in gates), default=1)
        found: dict[str, list[tuple[int, int, int]]] = {gate: [] for gate in gates}
        for gate, *line in rows(connection, self.gate_sql.waiting_lines, (text(list(gates)), each + 1, start)):
            found[gate].append((line[0], line[1], line[2]))
        fresh: list[int] = []
        for gate, lines in found.items():
            lines.sort(key=lambda line: (-line[1], line[2]))
            fresh += [line[0] for line in lines[:each]]
            look.read[gate] = start + each
            for _, priority, place in lines[each:]:
                look.merge.wait(gate, priority, place)
        if fresh:
            self._show(connection, look, fresh, max(2, min(wide + 1, 2 * look.limit // len(fresh))), now)

    def _show(self, connection: sqlite3.Connection, look: _Look, lines: Sequence[int], count: int, now: int) -> None:
        """Show the merge the next *count* jobs of each of *lines*, which are as far."""
        if not lines:
            return
        start = look.shown.get(lines[0], 0)
        found = dict(
            _heads(connection.execute(self.gate_sql.heads, (text(list(lines)), count + 1, start)).fetchone()[0])
        )
        more = {line for line, heads in found.items() if len(heads) > (_STRICT if line < 0 else count)}
        for line in more:
            del found[line][_STRICT if line < 0 else count :]
        for line, heads in found.items():
            look.shown[line] = start + len(heads)
        self._name(connection, look, found)
        self._open(connection, look, {gate for line, heads in found.items() for gate in _gates_of(line, heads)}, now)
        for line, heads in found.items():
            counts = look.served.get(line, True)
            dry = look.merge.offer(line, heads, more=line in more, strict=line < 0, counts=counts)
            if dry is not None:
                self._answer(connection, look, dry, now)

    def _name(self, connection: sqlite3.Connection, look: _Look, found: dict[int, list[Head[str]]]) -> None:
        """Say what each of the jobs *found* has to pass: all of a line the same, but those of a strict lane."""
        entries = [
            head.entry
            for line, heads in found.items()
            if line not in look.gates
            for head in heads[: 1 if line > 0 else None]
        ]
        if entries:
            for line, entry, queue, gating in rows(connection, self.gate_sql.gatings, (text(entries),)):
                gates = self._gates(look, line, queue, gating)
                if line > 0:
                    look.gates[line] = gates
                    look.served[line] = _serves(look.want, queue)
                else:
                    look.strict[entry] = gates
        for line, heads in found.items():
            if line > 0:
                gates = look.gates.get(line, ())
                for head in heads:
                    head.gates = gates
            else:
                for head in heads:
                    head.gates = look.strict[head.entry]
        lanes = {gate for line, heads in found.items() if line < 0 for gate in _gates_of(line, heads) if gate[0] == "o"}
        if lanes:
            back = rows(connection, self.gate_sql.comes_back, (text(sorted(lanes)),))
            for line, entry, queue, gating, priority, place in back:
                gates = tuple(gate for gate in self._gates(look, line, queue, gating) if gate[0] != "o")
                again = Head(0, place, entry, priority, gates)
                found[line][:] = [again] + [head for head in found[line] if head.entry != again.entry]

    def _gates(self, look: _Look, line: int, queue: str, gating: str | None) -> tuple[str, ...]:
        """What such a job has to pass, of what is not open to all."""
        if line == held_line(queue):
            gate = HELD + queue
            if gate not in look.shut:  # it was opened meanwhile
                look.reopened.add(queue)
                look.shut[gate] = 0
            return (gate,)
        names: tuple[str, ...] = ()
        if gating is not None:
            said = _said(gating)
            look.said.update(said)
            names = tuple(said)
        return (PAUSED + queue, *names) if PAUSED + queue in look.shut else names

    # -- what comes of it --------------------------------------------------------------------------------------

    def _write(self, connection: sqlite3.Connection, look: _Look, gates: Sequence[str], now: int) -> None:
        merge = look.merge
        if merge.admitted:
            connection.execute(self.gate_sql.release, (text([head.entry for head in merge.admitted]),))
            tokens: dict[str, list[int]] = {}
            for head in merge.admitted:
                for gate in head.gates:
                    tokens.setdefault(gate, []).append(head.entry)
            connection.execute(self.gate_sql.add_tokens, (text(tokens), now))
        moved = [(line, gate, head.priority, head.place) for line, (gate, head) in merge.stopped.items()]
        moved += [(line, _NOWHERE, head.priority, head.place) for line, head in merge.left.items()]
        if moved:
            connection.execute(self.gate_sql.move_lines, (text(moved),))
        if merge.ended:
            connection.execute(self.gate_sql.end_lines, (text(merge.ended),))
        done = [gate for gate in gates if gate not in merge.unread]
        if done:
            connection.execute(self.gate_sql.looked_at, (text(done),))
        merge.unread.discard(_NOWHERE)  # its lines are looked at next time in any case
        if merge.unread:  # those that time opened, too, are looked at by the next turn
            connection.execute(self.gate_sql.look_again, (text(sorted(merge.unread)),))
        again = sorted({*gates, *(gate for gate, _ in merge.stopped.values())})
        if again:
            connection.execute(self.gate_sql.set_openings, (text(again), now))

    def _open_held(self, connection: sqlite3.Connection, queue: str, limit: int) -> int:
        """Jobs that waited for *queue* to take new ones again come in, in their old places; those of lanes take turns from now."""
        held = rows(connection, self.gate_sql.held_jobs, (held_line(queue), limit))
        base = self.last_entry(connection)
        moved, come = [], []
        for new, (entry, name, gating) in enumerate(held, base + 1):
            given = None if gating is None else gating_of(gating)
            line = line_of(name, given)
            moved.append((entry, new, line, lane_of(given)))
            come.append(line)
        if moved:
            connection.execute(self.gate_sql.open_held, (text(moved),))
            run(connection, self.take_turns(base))
        if len(held) < limit:
            connection.execute(self.gate_sql.looked_at, (text([HELD + queue]),))
            connection.execute(self.gate_sql.end_lines, (text([held_line(queue)]),))
        else:  # the rest comes with the next turn
            connection.execute(self.gate_sql.look_again, (text([HELD + queue]),))
        return sum(line is None for line in come)

    def started(self, connection: sqlite3.Connection, entries: Sequence[int], now: int) -> None:
        """Jobs were claimed: what was reserved for them is used from *now* on, and keys held until then are free."""
        batch = text(entries)
        rates, keys = connection.execute(self.gate_sql.reserved, (batch,)).fetchone()
        if rates != "[]":
            connection.execute(self.gate_sql.stamp, (batch, now))
            connection.execute(self.gate_sql.set_openings, (rates, now))
        if keys:
            connection.execute(self.gate_sql.free_started, (batch,))

    # -- taking back -------------------------------------------------------------------------------------------

    def take_back_useless(self, connection: sqlite3.Connection, now: int) -> set[int] | None:
        """Take back what was admitted to no use; the entries of those that nobody claimed in time. None: there was nothing."""
        found = rows(connection, self.gate_sql.to_no_use, (now - int(UNCLAIMED * SECOND), _LOOKED))
        found += rows(connection, self.gate_sql.to_no_use_in_pause, (_LOOKED,))
        if not found:
            return None
        self.take_back(connection, [job[:4] for job in found])
        return {job[0] for job in found if job[4]}

    def take_back(self, connection: sqlite3.Connection, jobs: Sequence[Sequence[Any]]) -> None:
        """Available jobs, each as (entry, line, priority, place), stand in their lines again; their tokens are free."""
        if not jobs:
            return
        entries = text(sorted({job[0] for job in jobs}))
        connection.execute(self.gate_sql.take_back, (entries,))
        first: dict[int, tuple[int, int]] = {}
        for _, line, priority, place in jobs:
            first[line] = max(first.get(line, (priority, -place)), (priority, -place))
        lines = [(line, priority, -place) for line, (priority, place) in first.items()]
        connection.execute(self.gate_sql.look_at_lines, (text(lines),))
        gates = connection.execute(self.gate_sql.gates_of, (entries,)).fetchone()[0]
        connection.execute(self.gate_sql.drop_tokens, (entries,))
        connection.execute(self.gate_sql.look_again, (gates,))


def _serves(want: Want | None, queue: str) -> bool:
    return want is None or (queue in want.queues if want.queues is not None else queue not in want.exclude)


def _gates_of(line: int, heads: Sequence[Head[str]]) -> Iterator[str]:
    """The gates of *heads*, all of one line."""
    for head in heads[: 1 if line > 0 else None]:
        yield from head.gates


@lru_cache(maxsize=4096)
def _said(gating: str) -> dict[str, tuple[int, int]]:
    """The gates that a job has to pass, in the order of all, and what it says of each."""
    given = gating_of(gating)
    said = {name_of(gate): limits_of(gate) for gate in given.gates}
    return {name: said[name] for name in names_of(given)}
