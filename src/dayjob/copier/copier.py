"""Moving from one store to another: jobs, pauses, records and history, one batch after the other, so that no job is lost.

A waiting job is at every moment in one store alone to be run, whoever dies when:

    source                              target
    1. record `copy`: these ids
    2. cancelled, "moved to <target>"                         from here on no worker there takes them
    3. record `copy`: these jobs, whole                       for one whose memory goes, by some bound of retention
                                        4. adopted            from here on workers here do
    5. record `copy`: the next ids ...

A copy that died between 2 and 4 is taken up by the next one, which finds the jobs among the cancelled ones, or in the record.
What changed hands before 2 is not touched: the store cancels only what waits. Finished jobs are copied, and stay; adopting
twice is harmless.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from dayjob.clock import SECOND
from dayjob.copier.history import History
from dayjob.copier.report import KIND, Journal, Report
from dayjob.copier.settings import Settings
from dayjob.copier.steps import ENOUGH, adopt, heft, moved, outrun, pages, patiently, size
from dayjob.copier.watch import Watch
from dayjob.errors import ConfigError, NotSupported, SchemaMismatch, StoreUnavailable
from dayjob.ids import new_id
from dayjob.states import WAITING, Outcome, State
from dayjob.store.exits import MOVED
from dayjob.store.records import Cancel, Enqueued, Filter, Whole

if TYPE_CHECKING:
    from dayjob.store.contract import Store
    from dayjob.store.records import JobRow, WorkerRow

BATCH = 500
KEPT = 7 * 86_400.0
"""Seconds for which the source remembers that a job was moved, and where to."""
LOOK = 1.0
"""Seconds between two looks at a source that is in use, when it says nothing of new jobs."""
GONE = "the target had it, and has deleted it within the last hour: it stays; copy again when the hour is over"
_AFTER_CRASH = (Outcome.LOST, Outcome.CRASHED)
_UNCHANGED = (Outcome.RELEASED, Outcome.PARKED)


_journal = msgspec.json.Decoder(Journal).decode
_encode = msgspec.json.Encoder().encode


class Copier:
    """One copy from *source* to *target*.

    Args:
        live: workers and producers may go on in the source; the copy follows until no worker is left there.
        told: called now and then, as it gets on.
    """

    def __init__(
        self, source: Store, target: Store, *, live: bool = False, told: Callable[[Report], None] = lambda _: None
    ) -> None:
        self.source, self.target, self.live, self._told = source, target, live, told
        self.report = Report(source.url, target.url)
        self._mark = f"{MOVED}{target.url}"
        self._journal = Journal(new_id())
        self._version = 0
        self._refused: set[str] = set()
        self._stuck: list[Whole] = []
        self._history = History(source, target, self.report, told)
        self._settings = Settings(source, target, self.report)
        self._watch = Watch(source, lambda: self._announce(self._journal.ids, self._journal.jobs))

    # -- the course of it ----------------------------------------------------------------------------------------

    def plan(self) -> Report:
        """Count what `run` would do; nothing is written anywhere."""
        self._check()
        self.report.dry_run = True
        there = bool(self.target.check().schema)
        for state in State:
            self._history.plan(state, there=there, live=self.live)
        self._settings.plan(there=there)
        return self._ended()

    def run(self) -> Report:
        """Copy; returns when nothing is left to do, or *live* when nobody works in the source any more.

        Raises:
            NotSupported, SchemaMismatch: these stores, so, cannot be copied; nothing was written.
            ConfigError: nor can these; or, later, another copy has begun: what is on its way is the other's.
            StoreUnavailable: a store stayed away. Call it again, in this process or another: it goes on where it was.
        """
        self._check()
        self.target.migrate()
        self._begin()
        self._settings.copy()
        with contextlib.closing(self.source.listen(["work"])) as ear:
            waited = False
            while True:
                alone = self._watch.alone()
                self._waiting()
                if not waited:
                    self._history.copy()
                if alone and not (self._left() and self.live):
                    break
                waited = True
                ear.wait(LOOK)
        if self.live or waited:
            self._settings.copy()
            self._history.copy()
        self._close()
        return self._ended()

    def _ended(self) -> Report:
        patiently(self._look)
        return self.report

    def _look(self) -> None:
        self.report.waiting = self.source.count(Filter(states=tuple(WAITING)))
        self.report.running = self.source.count(Filter(states=(State.RUNNING,)))
        self.report.workers = self._alive()

    def stopped(self) -> Report:
        """The report of a copy that was interrupted: what was done, and what is left, as far as the stores answer at once."""
        with contextlib.suppress(StoreUnavailable):
            out = [one.job.id for one in self.source.export(self._journal.ids) if one.job.reason == self._mark]
            there = self.target.find(Filter(ids=tuple(out)), limit=len(out)).jobs if out else []
            self.report.on_way = len(out) - sum(not moved(job) for job in there)
            self._look()
        return self.report

    def _left(self) -> bool:
        """Whether there is anything more to move, or to wait for."""
        waiting = patiently(lambda: self.source.count(Filter(states=tuple(WAITING)))) > len(self._refused)
        return waiting or patiently(lambda: self.source.count(Filter(states=(State.RUNNING,)))) > 0

    # -- before anything is written ------------------------------------------------------------------------------

    def _check(self) -> None:
        for store in (self.source, self.target):
            if not store.processes:
                raise NotSupported(f"copying {store.url}", "an in-memory store is gone with its process; use a file")
        if self.source.url == self.target.url:
            raise ConfigError(f"--from and --to are the same store, {self.source.url}: nothing to copy")
        health = self.source.check()
        if not health.schema:
            raise ConfigError(f"there is no store at {self.source.url}: look at what --from says")
        if health.schema != health.wanted:
            raise SchemaMismatch(health.schema, health.wanted)
        self._check_unfinished(self.source, self.target.url)
        if self.target.check().schema:
            self._check_unfinished(self.target, "")
        if not self.live and (alive := self._alive()):
            who = f"{alive} worker{'s are' if alive > 1 else ' is'} alive"
            raise ConfigError(f"{who} in {self.source.url}: stop them (dayjob workers), or copy with --live")

    @staticmethod
    def _check_unfinished(store: Store, but: str) -> None:
        for record in store.list(KIND):
            if record.key != but and _journal(record.value).ids:
                raise ConfigError(
                    f"a copy from {store.url} to {record.key} was not finished, and jobs are on their way: finish it first, "
                    f"with the same --from and --to"
                )

    def _alive(self) -> int:
        now = self.source.now()
        return sum(_lives(one, now) for one in self.source.workers())

    # -- the journal ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take up what an earlier copy left, and write the first line."""
        earlier = self.source.read(KIND, self.target.url)
        left = Journal("")
        if earlier is not None:
            left, self._version = _journal(earlier.value), earlier.version
            self._journal.moved = left.moved
            for name, moved in left.moved.items():
                self.report.count(name).found = self.report.count(name).copied = moved
        self._announce(left.ids, left.jobs)
        mirrored = self.target.read(KIND, self.target.url)
        if mirrored is not None and _journal(mirrored.value).run == self._journal.run:
            if not left.ids:
                self.source.erase(KIND, self.target.url)
            raise ConfigError(f"--from {self.source.url} and --to {self.target.url} lead to the same store")
        if left.ids:
            self._resume(left)

    def _resume(self, left: Journal) -> None:
        """Deliver what an earlier copy had taken out, or was about to take out.

        That copy may still live, and be just before its step 2: what waits is taken out here, so that it finds nothing.
        """
        kept = _by_id(left.jobs)
        before = _by_id(patiently(lambda: self.source.export(left.ids)))
        self._take_out(left.ids)
        found = _by_id(patiently(lambda: self.source.export(left.ids)))
        arrived = self._gone_on([one.job for one in found.values() if one.job.reason == self._mark])
        taken: list[Whole] = []
        for id in left.ids:
            if id in arrived:
                state = _as_it_waited(found[id]).job.state
                self.report.count(state).found += 1
                self.report.count(state).there += 1
            elif id in found:
                if found[id].job.reason == self._mark:
                    taken.append(_as_it_waited(found[id], (kept.get(id) or before.get(id) or found[id]).job))
            elif id in kept:
                taken.append(_as_it_waited(kept[id]))
            else:
                why = "it was about to be moved when a copy was killed, and has gone since: it was run, or deleted"
                self.report.problem(f"job {id}", why)
        self._deliver(taken)

    def _gone_on(self, jobs: Sequence[JobRow]) -> set[str]:
        """Those of *jobs*, cancelled here, that went from the target to a third store after that: they had arrived."""
        known = self._there([job.id for job in jobs])
        ahead = patiently(self.target.now) - patiently(self.source.now)
        return {
            job.id
            for job in jobs
            if (row := known.get(job.id)) is not None
            and moved(row)
            and (row.finished_at or 0) - ahead > (job.finished_at or 0)
        }

    def _announce(self, ids: Sequence[str], jobs: Sequence[Whole] = ()) -> None:
        also = _by_id(self._stuck)
        self._journal.ids = list(dict.fromkeys([*ids, *also]))
        self._journal.jobs = [Whole(one.job, checkpoint=one.checkpoint) for one in {**also, **_by_id(jobs)}.values()]
        value = _encode(self._journal)
        version = patiently(lambda: self.source.write(KIND, self.target.url, value, expected=self._version))
        if version is None:
            found = patiently(lambda: self.source.read(KIND, self.target.url))
            if found is None or found.value != value:  # else it was our own write, whose reply was lost
                raise ConfigError(
                    f"another copy from {self.source.url} to {self.target.url} has begun: leave it to that one"
                )
            version = found.version
        self._version = version

    def _close(self) -> None:
        """Nothing is on its way: the record has done its duty."""
        if self._stuck:
            return
        patiently(lambda: self.source.erase(KIND, self.target.url, expected=self._version))

    # -- jobs that wait ------------------------------------------------------------------------------------------

    def _waiting(self) -> None:
        """Move all that wait now: the urgent first, and each queue in its order."""
        for ids in self._in_order():
            self._carry(ids)
            self._told(self.report)
        if len(self._journal.ids) > len(
            self._stuck
        ):  # all of them have arrived: whoever comes much later must not take them for on their way
            self._announce(())

    def _in_order(self) -> Iterator[list[str]]:
        """The ids of what waits, in batches. Sorted aside, in a file where there are many."""
        with contextlib.closing(sqlite3.connect("")) as aside:
            aside.execute("CREATE TABLE line (due INTEGER, urgency INTEGER, place INTEGER, id TEXT, weight INTEGER)")
            for page in pages(self.source, Filter(states=tuple(WAITING))):
                rows = [
                    (job.run_at if job.state is State.SCHEDULED else 0, -job.priority, job.place, job.id, size(job))
                    for job in page
                    if job.id not in self._refused
                ]
                aside.executemany("INSERT INTO line VALUES (?, ?, ?, ?, ?)", rows)
            batch: list[str] = []
            weight = 0
            for id, bytes in aside.execute("SELECT id, weight FROM line ORDER BY due, urgency, place"):
                if batch and (len(batch) == BATCH or weight + bytes > ENOUGH):
                    yield batch
                    batch, weight = [], 0
                batch.append(id)
                weight += bytes
            if batch:
                yield batch

    def _carry(self, ids: list[str]) -> None:
        """Steps 1 to 4 for *ids*."""
        before = _by_id(patiently(lambda: self.source.export(ids)))
        if len(ids) > 1 and sum(map(heft, before.values())) > 2 * ENOUGH:  # checkpoints or logs, which no list shows
            self._carry(ids[: len(ids) // 2])
            self._carry(ids[len(ids) // 2 :])
            return
        self._announce(ids)
        self._take_out(ids)
        after = _by_id(patiently(lambda: self.source.export(ids)))
        taken: list[Whole] = []
        for id, one in before.items():  # in the order of *ids*: each queue's own
            now = after.get(id)
            if now is not None and now.job.reason == self._mark:
                taken.append(_as_it_waited(now, one.job))
            else:
                count = self.report.count(one.job.state if one.job.state in WAITING else State.AVAILABLE)
                count.found += 1
                count.left += 1
        if taken:
            self._announce([one.job.id for one in taken], taken)
            self._deliver(taken, anew=True)

    def _take_out(self, ids: Sequence[str]) -> None:
        """Step 2 for those of *ids* that wait."""
        which = Filter(ids=tuple(ids), states=tuple(WAITING))
        patiently(lambda: self.source.act(which, Cancel(self._mark, KEPT), limit=len(ids)))

    def _deliver(self, jobs: Sequence[Whole], *, anew: bool = False) -> None:
        """Step 4: adopt, and count. *anew*: no earlier copy can have delivered them."""
        unknown: list[bool] = []
        answers = adopt(self.target, jobs, lambda: unknown.append(True))
        known = self._there(
            [one.job.id for one, answer in zip(jobs, answers, strict=True) if answer.outcome == "existing"]
        )
        refusals = {
            one.job.id: why
            for one, answer in zip(jobs, answers, strict=True)
            if (why := _refusal(one.job, answer, known.get(one.job.id), sure=anew and not unknown))
        }
        if refusals:  # whoever stood still for long is not the one to say so: another copy may have delivered them
            self._announce(self._journal.ids, self._journal.jobs)
        for one, answer in zip(jobs, answers, strict=True):
            count = self.report.count(one.job.state)
            count.found += 1
            if one.job.id in refusals:
                count.refused += 1
                self._refuse(one, refusals[one.job.id])
            elif answer.outcome == "inserted":
                count.copied += 1
                self._journal.moved[one.job.state] = self._journal.moved.get(one.job.state, 0) + 1
            else:
                count.there += 1
        for queue in {one.job.queue for one in jobs}:
            self.target.notify("work", queue.encode())

    def _there(self, ids: Sequence[str]) -> dict[str, JobRow]:
        """Those of *ids* that the target has."""
        if not ids:
            return {}
        found = patiently(lambda: self.target.find(Filter(ids=tuple(ids)), limit=len(ids)))
        return {job.id: job for job in found.jobs}

    def _refuse(self, one: Whole, why: str) -> None:
        """The job goes back to where it waited, and is left there; or stays in the journal, when that forgot it just now."""
        [answer] = patiently(lambda: self.source.adopt([one]))
        self._refused.add(one.job.id)
        if answer.outcome == "existing" and patiently(lambda: self.source.get(one.job.id)) is None:
            self._stuck.append(one)
            why += (
                "; the source has deleted it meanwhile, so it is kept in the record of this copy: copy again in an hour"
            )
        self.report.problem(f"job {one.job.id}", why)


def _refusal(job: JobRow, answer: Enqueued, known: JobRow | None, *, sure: bool) -> str | None:
    """Why *job* is not the target's, whose *answer* it was: None when it has it. *sure*: no earlier copy delivered it."""
    if answer.outcome == "refused":
        return str(answer.error)
    if answer.outcome == "inserted":
        return None
    if known is None:
        return GONE if sure else None
    if why := outrun(job, known):
        return why
    if sure and (known.task, known.payload) != (job.task, job.payload):
        return "the target has another job of this id"
    return None


def _by_id(jobs: Sequence[Whole]) -> dict[str, Whole]:
    return {one.job.id: one for one in jobs}


def _lives(worker: WorkerRow, now: int) -> bool:
    return worker.last_beat + int(worker.info.expiry * SECOND) > now


def _as_it_waited(one: Whole, before: JobRow | None = None) -> Whole:
    """A job that was taken out of its store, as it waited there; *before*: as it was seen a moment earlier."""
    job = one.job
    if job.state is State.CANCELLED:
        job.suspect = _suspect(job) or (before is not None and before.suspect)
        job.state = State.SCHEDULED if job.run_at > (job.finished_at or 0) else State.AVAILABLE
        job.reason = job.started_at = job.finished_at = job.keep_until = job.worker = None
    return one


def _suspect(job: JobRow) -> bool:
    """Whether its process died at its last attempt, and it has not run since: read from what was kept of its attempts."""
    for attempt in reversed(job.attempts):
        if attempt.outcome not in _UNCHANGED:
            return attempt.outcome in _AFTER_CRASH and attempt.round == job.round
    return False
