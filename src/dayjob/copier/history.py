"""Jobs that have finished: they are copied, and stay where they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dayjob.copier.report import Count, Report
from dayjob.copier.steps import adopt, moved, over, pages, patiently
from dayjob.states import TERMINAL, State
from dayjob.store.records import Enqueued, Filter

if TYPE_CHECKING:
    from dayjob.store.contract import Store
    from dayjob.store.records import JobRow


class History:
    """The finished jobs of *source* on their way to *target*; what becomes of each is counted in *report*."""

    def __init__(self, source: Store, target: Store, report: Report, told: Callable[[Report], None]) -> None:
        self.source, self.target, self.report, self._told = source, target, report, told

    def plan(self, state: State, *, there: bool, live: bool) -> None:
        """Count the jobs in *state*, finished or not, as a copy would find them; *there*: the target has a schema."""
        now, count = self.source.now(), self.report.count(state)
        for page in pages(self.source, Filter(states=(state,))):
            jobs = [job for job in page if not moved(job)]
            known = self._known(jobs) if there else set()
            count.found += len(jobs)
            for job in jobs:
                if job.id in known:
                    count.there += 1
                elif state is State.RUNNING and live:
                    count.left += 1
                elif over(job, now):
                    count.over += 1
                else:
                    count.copied += 1

    def copy(self) -> None:
        """Copy what the target does not have, newest first. A later call adds what has finished since."""
        earlier = {state: self.report.count(state).copied for state in TERMINAL}
        for state in TERMINAL:
            self.report.counts[state] = Count()
        for page in pages(self.source, Filter(states=tuple(TERMINAL))):
            jobs = [job for job in page if not moved(job)]
            known = self._known(jobs)
            now = patiently(self.target.now)
            answers = self._copy([job.id for job in jobs if job.id not in known and not over(job, now)])
            for job in jobs:
                self._count(job, known, answers, now)
            self._told(self.report)
        for state, copied in earlier.items():
            count = self.report.counts[state]
            ours = min(copied, count.there)  # the target has them, from the earlier call
            count.copied, count.there = count.copied + ours, count.there - ours

    def _copy(self, ids: Sequence[str]) -> dict[str, Enqueued]:
        wholes = patiently(lambda: self.source.export(ids)) if ids else []
        wholes = [one for one in wholes if one.job.state.terminal and not moved(one.job)]
        return dict(zip([one.job.id for one in wholes], adopt(self.target, wholes), strict=True))

    def _count(self, job: JobRow, known: set[str], answers: dict[str, Enqueued], now: int) -> None:
        count, answer = self.report.count(job.state), answers.get(job.id)
        count.found += 1
        if job.id in known or (answer is not None and answer.outcome == "existing"):
            count.there += 1
        elif over(job, now):
            count.over += 1
        elif answer is None:  # retried or deleted since the page was read
            count.left += 1
        elif answer.outcome == "refused":
            count.refused += 1
            self.report.problem(f"job {job.id}", str(answer.error))
        else:
            count.copied += 1

    def _known(self, jobs: Sequence[JobRow]) -> set[str]:
        """The ids among *jobs* that the target has, but for those that went from there to here: they come back."""
        if not jobs:
            return set()
        ids = tuple(job.id for job in jobs)
        found = patiently(lambda: self.target.find(Filter(ids=ids), limit=len(ids)))
        return {job.id for job in found.jobs if not moved(job)}
