"""Settle, stage, claim: the hot path, one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

import msgspec

from dayjob.clock import SECOND
from dayjob.states import EFFECTS, Outcome, State
from dayjob.store.exits import REMEMBERED, Exit, Held, begun, exit_of, finished, first_of_each, returned
from dayjob.store.records import Claimed, Settlement, Turn, Want
from dayjob.store.sqlite.admitting import AdmittingPart
from dayjob.store.sqlite.caps import Caps
from dayjob.store.sqlite.entering import run
from dayjob.store.sqlite.part import chunked, rows, strung, text, with_rows

TOGETHER = 200
"""Queues picked from in one statement: SQLite takes at most 500 terms in a compound SELECT."""
_MANY = 20
"""Lines that wait to be looked at: not to look at fewer saves nothing."""
_AGAIN = SECOND // 10
"""Microseconds until somebody who found nothing looks again, though more waits to be looked at."""

_claimed = msgspec.json.Decoder(list[Claimed]).decode
_lengths = msgspec.json.Decoder(list[int]).decode
_lengths_or_none = msgspec.json.Decoder(list[int | None]).decode


class TurnPart(AdmittingPart):
    """The Jobs protocol's `turn`, and the exits that rescue and leave share with it."""

    def turn(
        self,
        worker: str,
        claim_no: int | None = None,
        settlements: Sequence[Settlement] = (),
        wants: Sequence[Want] = (),
        *,
        now: int | None = None,
    ) -> Turn:
        with self.db.write(synced=bool(settlements)) as connection:
            now = self.db.now() if now is None else now
            refused: list[tuple[str, int]] = []
            settled: list[tuple[str, int, State]] = []
            if settlements:
                self._settle(connection, worker, settlements, now, refused, settled)
            control, next_due, stands, lease, suspects, pauses, gated, limited = connection.execute(
                self.sql.situation, (worker, claim_no)
            ).fetchone()
            if next_due is not None and next_due <= now:
                next_due = self._stage_due(connection, now, bool(gated))
                suspects = True  # perhaps now: looked up below
            enough: list[int] | None = None
            if gated:
                # Of several wants one could starve, if those of another were enough.
                want = wants[0] if len(wants) == 1 and wants[0].id is None and not wants[0].suspects else None
                if want is not None and not limited:
                    enough = self._enough(connection, want, bool(pauses), now)
                if enough is None:
                    self.admission(connection, now, want=want)
                suspects = True  # as above
            claimed: list[Claimed] = []
            if lease is not None:  # the reply to this claim was lost: the same batch again
                entries = connection.execute(self.sql.entries_of_lease, (lease,)).fetchone()[0]
                claimed = self._fetch(connection, entries, lease)
            elif wants and stands:
                assert claim_no is not None, "a claim needs its number"
                caps = Caps(self, connection, now) if limited else None
                claimed = self._claim(connection, worker, claim_no, wants, now, bool(pauses), caps, enough)
                if gated and claimed:
                    self.started(connection, [job.entry for job in claimed], now)
            if gated:
                more = len(claimed) < sum(one.limit for one in wants) and self.more_to_look_at(connection)
                again = now + _AGAIN if more else None  # others came before, and were all that one look lets in
                known = [due for due in (next_due, self.next_opening(connection), again) if due is not None]
                next_due = min(known, default=None)
            suspects = bool(suspects) and self._suspects_wait(connection, wants)
        return Turn(now, claimed, refused, settled, control, next_due, suspects)

    # -- settle ------------------------------------------------------------------------------------------------

    def _settle(
        self,
        connection: sqlite3.Connection,
        worker: str,
        settlements: Sequence[Settlement],
        now: int,
        refused: list[tuple[str, int]],
        settled: list[tuple[str, int, State]],
    ) -> None:
        if len({one.entry for one in settlements}) < len(settlements):
            settlements = first_of_each(settlements, refused)
        completed = [one for one in settlements if one.outcome is Outcome.COMPLETED]
        if completed:
            self._complete(connection, worker, completed, now, refused)
        if len(completed) == len(settlements):
            return
        others = {one.entry: one for one in settlements if one.outcome is not Outcome.COMPLETED}
        held = [
            Held(*row)
            for row in rows(connection, self.sql.held, (text([(s.entry, s.id) for s in others.values()]), worker))
        ]
        here = {job.entry for job in held}
        refused.extend((s.id, s.entry) for s in others.values() if s.entry not in here)
        exits = [exit_of(job, others[job.entry]) for job in held]
        self.leave_claims(connection, worker, exits, now)
        settled.extend(
            (out.job.id, out.job.entry, out.state)
            for out in exits
            if out.state is not EFFECTS[out.settlement.outcome].state
        )

    def _complete(
        self,
        connection: sqlite3.Connection,
        worker: str,
        done: Sequence[Settlement],
        now: int,
        refused: list[tuple[str, int]],
    ) -> None:
        matched = self._finish(connection, worker, done, State.COMPLETED, None, now)
        if matched < len(done):
            # Some are stale. The live rows are still there, so the same condition tells which were finished.
            pairs = text([(one.entry, one.id) for one in done])
            here = {row[0] for row in rows(connection, self.sql.held, (pairs, worker))}
            refused.extend((one.id, one.entry) for one in done if one.entry not in here)
            done = [one for one in done if one.entry in here]
        connection.execute(self.sql.forget, (text([one.entry for one in done]),))
        self._drop_unkept(connection, [one for one in done if one.keep == 0], now)

    def _finish(
        self,
        connection: sqlite3.Connection,
        worker: str,
        done: Sequence[Settlement],
        state: State,
        reason: str | None,
        now: int,
        attempts: int = 1,
        crashes: int = 0,
    ) -> int:
        """Copy running jobs to the history; returns how many were still held. The caller deletes the live rows."""
        good = state is State.COMPLETED
        ready = [
            (s.entry, s.id, s.started_at, s.finished_at or now, None if s.keep is None else now + int(s.keep * SECOND),
             s.result if good else s.error)
            for s in done
        ]  # fmt: skip
        constants = (str(state), reason, good, good, attempts, crashes, worker, worker)
        matched = 0
        for size, chunk in chunked(ready):
            statement = with_rows(self.sql.finish, size, 6)
            matched += connection.execute(statement, (*chain.from_iterable(chunk), *constants)).rowcount
        return matched

    def _drop_unkept(self, connection: sqlite3.Connection, done: Sequence[Settlement], now: int) -> None:
        """Jobs kept for no time at all leave only their id."""
        if done:
            self.erase_finished(connection, [one.entry for one in done])
            ids = [one.id for one in done]
            self.forget_traces(connection, ids)
            connection.execute(self.sql.remember_gone, (text(ids), now + REMEMBERED))

    def leave_claims(self, connection: sqlite3.Connection, worker: str, exits: Sequence[Exit], now: int) -> None:
        """Every exit of a claim but success: attempts appended, terminal jobs to history, the others put back."""
        if not exits:
            return
        self._add_attempts(connection, worker, begun(exits), now)
        for (state, reason, outcome), group in finished(exits).items():
            effect = EFFECTS[outcome]
            self._finish(connection, worker, group, state, reason, now, effect.attempt, effect.crashes)
            connection.execute(self.sql.forget, (text([one.entry for one in group]),))
            self._drop_unkept(connection, [one for one in group if one.keep == 0], now)
        self._put_back(connection, [out for out in exits if not out.state.terminal], now)

    def _add_attempts(self, connection: sqlite3.Connection, worker: str, exits: Sequence[Exit], now: int) -> None:
        if not exits:
            return
        body, places = strung([out.settlement.error for out in exits])
        tried = [
            (out.job.id, out.job.attempt + 1, out.job.round, str(out.settlement.outcome), out.settlement.started_at,
             out.settlement.finished_at or now, out.settlement.reason, offset, length)
            for out, (offset, length) in zip(exits, places, strict=True)
        ]  # fmt: skip
        connection.execute(self.sql.add_attempts, (text(tried), worker, body))
        trimmed = len(connection.execute(self.sql.trim_attempts, (text(tried),)).fetchall())
        if trimmed:
            self.add_tally(connection, now, exits[0].job.queue, "trimmed", trimmed)

    def _put_back(self, connection: sqlite3.Connection, exits: Sequence[Exit], now: int) -> None:
        if not exits:
            return
        base = self.last_entry(connection)
        batch = []
        for number, out in enumerate(exits, 1):
            back = returned(out, now)
            batch.append(
                (out.job.entry, base + number, str(out.state), back.attempt, back.crashes, back.suspect, back.parked,
                 back.run_at, back.reason, back.begun)
            )  # fmt: skip
        connection.execute(self.sql.put_back, (text(batch),))

    def add_tally(self, connection: sqlite3.Connection, now: int, queue: str, name: str, value: float) -> None:
        """Add to this minute's count of *name*."""
        connection.execute(self.sql.add_tally, (now - now % (60 * SECOND), queue, name, value))

    # -- stage -------------------------------------------------------------------------------------------------

    def _stage_due(self, connection: sqlite3.Connection, now: int, gated: bool) -> int | None:
        """Make what is due available; returns the next due time that lies ahead (or is left over)."""
        self.stage_batch(connection, now, 1000, gated)
        found = connection.execute(self.sql.next_due).fetchone()
        return None if found is None else int(found[0])

    def stage_batch(self, connection: sqlite3.Connection, now: int, limit: int, gated: bool) -> int:
        """Up to *limit* due jobs become available in the order of their time; returns how many."""
        count = int(connection.execute(self.sql.count_due, (now, limit)).fetchone()[0])
        if count:
            base = self.last_entry(connection)
            connection.execute(self.sql.stage, (now, limit, base))
            if gated:
                run(connection, self.take_turns(base))
        return count

    # -- claim -------------------------------------------------------------------------------------------------

    def _claim(
        self,
        connection: sqlite3.Connection,
        worker: str,
        claim_no: int,
        wants: Sequence[Want],
        now: int,
        pauses: bool,
        caps: Caps | None,
        enough: list[int] | None,
    ) -> list[Claimed]:
        """*enough*: what the one want takes, where that is known."""
        entries: list[int] = []
        lease: int | None = None
        for want in wants:
            picked = self._pick(connection, want, pauses, caps) if enough is None else enough
            if not picked:
                continue
            entries += picked
            if lease is None:
                lease = connection.execute(self.sql.add_lease, (worker, claim_no, now, text(entries))).lastrowid
            else:
                connection.execute(self.sql.extend_lease, (lease, text(entries)))
            connection.execute(self.sql.run, (lease, text(picked)))  # at once: the next want may overlap
            if caps is not None:
                caps.count(picked)
        return [] if lease is None else self._fetch(connection, text(entries), lease)

    def _enough(self, connection: sqlite3.Connection, want: Want, pauses: bool, now: int) -> list[int] | None:
        """What *want* takes, if none of the many who wait to be looked at could come before one of them."""
        if not connection.execute(self.gate_sql.only_many_wait, (now, _MANY)).fetchone()[0]:
            return None
        picked = self._pick(connection, want, pauses, None)
        if not picked or len(picked) < want.limit:
            return None
        return picked if connection.execute(self.gate_sql.nobody_overtakes, (picked[-1],)).fetchone()[0] else None

    def _pick(self, connection: sqlite3.Connection, want: Want, pauses: bool, caps: Caps | None) -> list[int]:
        """The entries that *want* takes."""
        if want.id is not None:
            return rows(connection, self.sql.available, (want.id,))
        queues = self._queues_of(connection, want, pauses) if want.limit > 0 else ()
        if not queues:
            return []
        picked: list[int] = []
        for start in range(0, len(queues), TOGETHER):
            some = queues[start : start + TOGETHER]
            statement = _pick(len(some), want.suspects, self.db.namespace, caps is not None)
            most = () if caps is None else [caps.most(queue, want.limit) for queue in some]
            picked += rows(connection, statement, (*some, want.limit, *most))
        if len(queues) > TOGETHER:
            picked = rows(connection, self.sql.most_urgent, (text(picked), want.limit))
        return picked

    def _queues_of(self, connection: sqlite3.Connection, want: Want, pauses: bool) -> Sequence[str]:
        """The queues of *want* that may be claimed from now."""
        if want.queues is not None:
            paused = {row[0] for row in connection.execute(self.sql.paused)} if pauses else ()
            return [queue for queue in dict.fromkeys(want.queues) if queue not in paused]
        every = self.sql.suspect_queues if want.suspects else self.sql.ready_queues
        return [row[0] for row in connection.execute(every) if row[0] not in want.exclude]

    def _fetch(self, connection: sqlite3.Connection, entries: str, lease: int) -> list[Claimed]:
        found, lengths, payloads, option_lengths, options = connection.execute(
            self.sql.fetch, (entries, lease)
        ).fetchone()
        jobs = _claimed(found)
        offset = 0
        for job, length in zip(jobs, _lengths(lengths), strict=True):
            end = offset + length
            job.payload = payloads[offset:end]
            offset = end
        if options is not None:
            offset = 0
            for job, wide in zip(jobs, _lengths_or_none(option_lengths), strict=True):
                if wide is not None:
                    job.options = options[offset : offset + wide]
                    offset += wide
        return jobs

    def _suspects_wait(self, connection: sqlite3.Connection, wants: Iterable[Want]) -> bool:
        waiting = {row[0] for row in connection.execute(self.sql.suspect_queues)}
        return bool(waiting) and any(
            waiting.intersection(want.queues) if want.queues is not None else waiting.difference(want.exclude)
            for want in wants
        )


@lru_cache(maxsize=256)
def _pick(queues: int, suspects: bool, namespace: str, capped: bool = False) -> str:
    """The statement that picks the first entries of so many queues, by the index alone.

    Each queue's first ones come from one short range of its index; merging them costs the limit, not the backlog. With
    *capped* each queue has a limit of its own, after the common one.
    """
    index = f"{namespace}_job_{'suspect' if suspects else 'ready'}"
    one = (
        "SELECT * FROM (SELECT entry, priority, place FROM {ns}_job INDEXED BY {index} WHERE queue = ?{q} "
        "AND state = 'available' AND suspect = {suspect} ORDER BY priority DESC, place, entry LIMIT ?{n})"
    )
    parts = [
        one.format(ns=namespace, index=index, q=q, n=queues + 1 + q * capped, suspect=int(suspects))
        for q in range(1, queues + 1)
    ]
    if queues == 1:
        return f"SELECT json_group_array(entry) FROM ({parts[0]})"
    merged = " UNION ALL ".join(parts)
    return f"SELECT json_group_array(entry) FROM (SELECT entry FROM ({merged}) ORDER BY priority DESC, place, entry LIMIT ?{queues + 1})"
