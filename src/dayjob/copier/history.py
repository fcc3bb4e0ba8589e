"""Jobs that have finished: they are copied, and stay where they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from dayjob.copier.report import HISTORY, Count, Report
from dayjob.copier.steps import adopt, moved, outrun, over, pages, patiently
from dayjob.ids import new_id
from dayjob.states import TERMINAL, State
from dayjob.store.exits import REMEMBERED
from dayjob.store.records import Enqueued, Filter

if TYPE_CHECKING:
    from dayjob.store.contract import Store
    from dayjob.store.records import JobRow


class Mark(Struct):
    """Up to where the history was copied.

    Attributes:
        id: of that copy. at: the source's time when it began. entry: the highest that it met.
    """

    id: str
    at: int
    entry: int


class History:
    """The finished jobs of *source* on their way to *target*; what becomes of each is counted in *report*."""

    def __init__(self, source: Store, target: Store, report: Report, told: Callable[[Report], None]) -> None:
        self.source, self.target, self.report, self._told = source, target, report, told
        self._mark: Mark | None = None

    def plan(self, state: State, *, there: bool, live: bool) -> None:
        """Count the jobs in *state*, finished or not, as a copy would find them; *there*: the target has a schema."""
        now, count = self.source.now(), self.report.count(state)
        for page in pages(self.source, Filter(states=(state,))):
            jobs = [job for job in page if not moved(job)]
            known = self._known(jobs) if there else {}
            count.found += len(jobs)
            for job in jobs:
                if job.id in known:
                    count.there += 1
                elif state is State.RUNNING and live:
                    count.left += 1
                elif over(job, now):
                    count.over += 1
                elif there and self._settled(job):
                    count.there += 1
                else:
                    count.copied += 1

    def copy(self) -> None:
        """Copy what the target does not have, newest first. A later call adds what has finished since."""
        mark = Mark(new_id(), patiently(self.source.now), 0)
        earlier = {state: self.report.count(state).copied for state in TERMINAL}
        for state in TERMINAL:
            self.report.counts[state] = Count()
        for page in pages(self.source, Filter(states=tuple(TERMINAL))):
            jobs = [job for job in page if not moved(job)]
            known = self._known(jobs)
            now = patiently(self.target.now)
            answers = self._copy(
                [job.id for job in jobs if job.id not in known and not over(job, now) and not self._settled(job)]
            )
            mark.entry = max([mark.entry, *(job.entry for job in page)])
            for job in jobs:
                self._count(job, known, answers, now)
            self._told(self.report)
        if not any(self.report.count(state).refused for state in TERMINAL):
            self._write(mark)
        for state, copied in earlier.items():
            count = self.report.counts[state]
            ours = min(copied, count.there)  # the target has them, from the earlier call
            count.copied, count.there = count.copied + ours, count.there - ours

    def _copy(self, ids: Sequence[str]) -> dict[str, Enqueued]:
        wholes = patiently(lambda: self.source.export(ids)) if ids else []
        wholes = [one for one in wholes if one.job.state.terminal and not moved(one.job)]
        return dict(zip([one.job.id for one in wholes], adopt(self.target, wholes), strict=True))

    def _write(self, mark: Mark) -> None:
        value = msgspec.json.encode(mark)
        for store, other in ((self.target, self.source), (self.source, self.target)):
            patiently(lambda store=store, other=other: store.write(HISTORY, other.url, value))  # type: ignore[misc]

    def _settled(self, job: JobRow) -> bool:
        """Whether an earlier copy brought *job*: what the target has deleted since must not come back.

        Only if the target says so, too: it may be a new one at the same address.
        """
        if self._mark is None:
            here = patiently(lambda: self.source.read(HISTORY, self.target.url))
            there = patiently(lambda: self.target.read(HISTORY, self.source.url))
            same = here is not None and there is not None and here.value == there.value
            self._mark = msgspec.json.decode(here.value, type=Mark) if here is not None and same else Mark("", 0, 0)
        return job.entry <= self._mark.entry and (job.finished_at or 0) < self._mark.at - REMEMBERED

    def _count(self, job: JobRow, known: dict[str, JobRow], answers: dict[str, Enqueued], now: int) -> None:
        count, answer = self.report.count(job.state), answers.get(job.id)
        count.found += 1
        row = known.get(job.id)
        if row is not None and (why := outrun(job, row)):
            count.refused += 1
            self.report.problem(f"job {job.id}", why)
        elif row is not None or (answer is not None and answer.outcome == "existing"):
            count.there += 1
        elif over(job, now):
            count.over += 1
        elif answer is None and self._settled(job):
            count.there += 1
        elif answer is None:  # retried or deleted since the page was read
            count.left += 1
        elif answer.outcome == "refused":
            count.refused += 1
            self.report.problem(f"job {job.id}", str(answer.error))
        else:
            count.copied += 1

    def _known(self, jobs: Sequence[JobRow]) -> dict[str, JobRow]:
        """Those of *jobs* that the target has, as they are there, but for those that went from there to here: they come back."""
        if not jobs:
            return {}
        ids = tuple(job.id for job in jobs)
        found = patiently(lambda: self.target.find(Filter(ids=ids), limit=len(ids)))
        return {job.id: job for job in found.jobs if not moved(job)}
