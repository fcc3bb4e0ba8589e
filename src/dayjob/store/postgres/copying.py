"""Jobs as they are, out of the schema and into it: the Copying protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from dayjob.clock import SECOND
from dayjob.states import Outcome
from dayjob.store.gating import Gating
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.finder import DONE, LIVE, RUNS
from dayjob.store.postgres.finder import job as job_of
from dayjob.store.postgres.inspector import InspectorPart
from dayjob.store.postgres.part import encode, uuids
from dayjob.store.postgres.wire import Blobs, Uuids, plain, words
from dayjob.store.records import EXISTING, INSERTED, AttemptRow, Enqueued, Log, Whole


class CopyingPart(InspectorPart):
    """Export and adopt."""

    def export(self, ids: Sequence[str]) -> list[Whole]:
        namespace = f'"{self.db.namespace}"'
        names = plain(uuids(ids))
        found: dict[str, Whole] = {}
        # OFFSET 0: a plan made for an empty table would rather read all of it, later.
        among = "(SELECT j.* FROM {ns}.%s AS j WHERE j.id = ANY ($1::uuid[]) OFFSET 0) AS j"
        done = f"SELECT {DONE} FROM {among % 'history'} ORDER BY j.entry".replace("{ns}", namespace)
        live = f"SELECT {LIVE} FROM {among % 'job'} {RUNS}".replace("{ns}", namespace)
        with self.db.read() as connection:
            for select in (done, live):
                for row in connection.execute(select, (names,), binary=True).fetchall():
                    found[row[0]] = Whole(job_of(row))
            for id, number, round, outcome, *rest in connection.execute(self.sql.attempts_of, (names,)).fetchall():
                if id in found:
                    found[id].job.attempts.append(AttemptRow(number, round, Outcome(outcome), *rest))
            for id, *log in connection.execute(self.sql.logs_of, (names,)).fetchall():
                if id in found:
                    found[id].logs.append(Log(*log))
            for id, value in connection.execute(self.sql.checkpoints_of, (names,)).fetchall():
                if id in found:
                    found[id].checkpoint = value
        return [found[id] for id in dict.fromkeys(ids) if id in found]

    def adopt(self, jobs: Sequence[Whole], *, now: int | None = None) -> list[Enqueued]:
        ids = Uuids(dict.fromkeys(one.job.id for one in jobs))
        fresh: dict[str, Whole] = {}
        answers = []
        with self.db.write() as connection:
            connection.execute(self.sql.adopting)
            moment = int(self.value(connection, self.sql.settling))
            moment = self.db.at(now) or moment
            moved = [row[0] for row in connection.execute(self.sql.drop_moved, (ids,)).fetchall()]
            if moved:
                connection.execute(self.sql.drop_traces, (plain(moved),))
            known = {row[0] for row in connection.execute(self.sql.known_ids, (ids,)).fetchall()}
            for one in jobs:
                answers.append(EXISTING if one.job.id in known or one.job.id in fresh else INSERTED)
                if answers[-1] is INSERTED:
                    fresh[one.job.id] = one
            waiting = self._adopt_live(
                connection, [one for one in fresh.values() if not one.job.state.terminal], moment
            )
            finished = [one for one in fresh.values() if one.job.state.terminal]
            self._adopt_finished(connection, finished, moment)
            self._adopt_traces(connection, [*waiting, *finished])
        lost = {id for id, one in fresh.items() if not one.job.state.terminal} - {one.job.id for one in waiting}
        return [EXISTING if one.job.id in lost else answer for one, answer in zip(jobs, answers, strict=True)]

    def _adopt_live(self, connection: Connection, jobs: Sequence[Whole], now: int) -> list[Whole]:
        """Store waiting jobs; those that nobody else stored at this moment."""
        if not jobs:
            return []
        columns = (
            *_common(jobs),
            plain([one.job.suspect for one in jobs]),
            plain([_recorded(one) for one in jobs]),
            words([_progress(one) for one in jobs]),
            words(self._gatings(connection, jobs, now)),
        )
        rows = connection.execute(self.sql.adopt_live, (now, *columns)).fetchall()
        new = {row[0] for row in rows}
        self.by_turn(connection, [row for row in rows if row[1]], now)
        return [one for one in jobs if one.job.id in new]

    def _gatings(self, connection: Connection, jobs: Sequence[Whole], now: int) -> list[str | None]:
        """What each of *jobs* has to wait for; those whose key another has come without it."""
        found = [one.job.gating for one in jobs]
        keyed = [(one.job.id, _gating(one.job.gating)) for one in jobs if one.job.gating and one.job.gating.unique]
        if keyed:
            given = (now, Uuids([id for id, _ in keyed]), words([gating for _, gating in keyed]))
            held = {row[0] for row in connection.execute(self.sql.take_keys, given).fetchall()}
            found = [
                replace(gating, unique=None) if gating and one.job.id in held else gating
                for one, gating in zip(jobs, found, strict=True)
            ]
        return [_gating(each) for each in found]

    def _adopt_finished(self, connection: Connection, jobs: Sequence[Whole], now: int) -> None:
        if not jobs:
            return
        until = {one.job.keep_until for one in jobs if one.job.keep_until is not None}
        connection.execute(self.sql.add_days, (now, sorted({(stamp - now) / SECOND for stamp in until})))
        rows = [one.job for one in jobs]
        columns = (
            *_common(jobs),
            plain([_recorded(one) for one in jobs]),
            words([_progress(one) for one in jobs]),
            words([job.state for job in rows]),
            words([_clean(job.reason) for job in rows]),
            Blobs([job.result for job in rows]),
            Blobs([job.error for job in rows]),
            plain([job.started_at for job in rows]),
            plain([job.finished_at for job in rows]),
            plain([job.keep_until for job in rows]),
            words([_clean(job.worker) for job in rows]),
            words([_gating(job.gating) for job in rows]),
        )
        connection.execute(self.sql.adopt_finished, (now, *columns))

    def _adopt_traces(self, connection: Connection, jobs: Sequence[Whole]) -> None:
        """What was kept with them, in the order in which it came."""
        attempts = [(one.job.id, attempt) for one in jobs for attempt in one.job.attempts]
        if attempts:
            connection.execute(
                self.sql.adopt_attempts,
                (
                    Uuids([id for id, _ in attempts]),
                    plain([one.number for _, one in attempts]),
                    plain([one.round for _, one in attempts]),
                    words([one.outcome for _, one in attempts]),
                    plain([one.started_at for _, one in attempts]),
                    plain([one.finished_at for _, one in attempts]),
                    words([one.worker for _, one in attempts]),
                    Blobs([one.error for _, one in attempts]),
                    words([_clean(one.reason) for _, one in attempts]),
                ),
            )
        logs = [(one.job.id, log) for one in jobs for log in one.logs]
        if logs:
            connection.execute(
                self.sql.adopt_logs,
                (
                    Uuids([id for id, _ in logs]),
                    plain([log.at for _, log in logs]),
                    words([log.level for _, log in logs]),
                    words([_clean(log.message) for _, log in logs]),
                ),
            )
        checkpoints = [one for one in jobs if one.checkpoint is not None]
        if checkpoints:
            ids = Uuids([one.job.id for one in checkpoints])
            connection.execute(self.sql.adopt_checkpoints, (ids, Blobs([one.checkpoint for one in checkpoints])))


def _common(jobs: Sequence[Whole]) -> tuple[Any, ...]:
    """The columns that waiting and finished jobs have in common, from the id to the round."""
    rows = [one.job for one in jobs]
    return (
        Uuids([job.id for job in rows]),
        words([job.queue for job in rows]),
        words([job.task for job in rows]),
        Blobs([job.payload for job in rows]),
        plain([job.priority for job in rows]),
        plain([job.max_attempts for job in rows]),
        words([job.tags for job in rows]),
        words([job.meta for job in rows]),
        Blobs([job.options for job in rows]),
        plain([job.created_at for job in rows]),
        plain([job.run_at for job in rows]),
        plain([job.expires_at for job in rows]),
        plain([job.attempt for job in rows]),
        plain([job.crashes for job in rows]),
        plain([job.round for job in rows]),
    )


def _gating(gating: Gating | None) -> str | None:
    return None if gating is None or gating == Gating() else encode(gating).decode()


def _recorded(one: Whole) -> bool:
    """Whether anything was kept with the job: only then is it looked for."""
    return bool(one.job.attempts or one.logs or one.checkpoint is not None or one.job.progress)


def _progress(one: Whole) -> str | None:
    return None if one.job.progress is None else _clean(encode(one.job.progress).decode())


def _clean(text: str | None) -> str | None:
    """No text of this engine's holds a NUL."""
    return None if text is None else text.replace("\0", "\u2400")
