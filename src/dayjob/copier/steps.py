"""What all parts of a copy do with a store: ask again while it is away, read page by page, adopt, and judge what they read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from dayjob.errors import BadRow, StoreUnavailable
from dayjob.states import State
from dayjob.store import ENGINES
from dayjob.store.exits import MOVED, was_moved
from dayjob.store.records import Enqueued

if TYPE_CHECKING:
    from dayjob.store.contract import Store
    from dayjob.store.records import Filter, JobRow, Whole

T = TypeVar("T")

PAGE = 500
FIRST = 50
"""Jobs of the first page: how large they are is not known yet."""
ENOUGH = 8 << 20
"""Bytes of payloads, results and the like that go in one batch, about; a job that is larger goes alone."""
PATIENCE = 60.0
"""Seconds for which a store may be away before the copy gives up."""
PAUSE = 0.1
"""Seconds before it is asked again, at first."""


def patiently(call: Callable[[], T], again: Callable[[], None] = lambda: None) -> T:
    """*call*, again and again while the store is away, for a minute; *again* hears of each time that the outcome was unknown.

    Whatever is called so may be repeated.
    """
    pause, end = PAUSE, time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() + pause > end:
                raise
        again()
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def pages(store: Store, which: Filter) -> Iterator[list[JobRow]]:
    """All jobs that match, newest id first; so many at a time that they are no more than memory bears."""
    after, limit = None, FIRST
    while True:
        page = patiently(lambda after=after, limit=limit: store.find(which, limit=limit, after=after))  # type: ignore[misc]
        yield page.jobs
        each = sum(map(size, page.jobs)) // max(1, len(page.jobs))
        limit = max(1, min(PAGE, 4 * limit, ENOUGH // max(1, each)))
        if page.after is None:
            return
        after = page.after


def adopt(store: Store, jobs: Sequence[Whole], again: Callable[[], None] = lambda: None) -> list[Enqueued]:
    """What became of each; one that the store cannot hold keeps none of its neighbours out."""
    if not jobs:
        return []
    try:
        return patiently(lambda: store.adopt(jobs), again)
    except BadRow as error:
        if len(jobs) == 1:
            return [Enqueued("refused", error)]
    half = len(jobs) // 2
    return [*adopt(store, jobs[:half], again), *adopt(store, jobs[half:], again)]


def size(job: JobRow) -> int:
    """Its bytes, about, as far as a list shows them."""
    return 500 + sum(len(part or b"") for part in (job.payload, job.options, job.result, job.error))


def heft(one: Whole) -> int:
    """Its bytes, about, with all that was kept with it."""
    attempts = sum(200 + len(each.error or b"") for each in one.job.attempts)
    return size(one.job) + len(one.checkpoint or b"") + attempts + sum(100 + len(log.message) for log in one.logs)


def moved(job: JobRow) -> bool:
    """Whether it is only the memory of a job that was moved away."""
    reason = (job.reason or "").removeprefix(MOVED)
    return (
        job.state is State.CANCELLED and was_moved(job.reason) and reason.partition(":")[0].partition("+")[0] in ENGINES
    )


def outrun(job: JobRow, known: JobRow) -> str | None:
    """What to tell when *job* was retried after its end had been copied, and the target still has that one, *known*; else None."""
    if not (known.state.terminal and known.round < job.round):
        return None
    return f"it was retried here after it had been copied, and is {known.state} there: delete it there, and copy again an hour later"


def over(job: JobRow, now: int) -> bool:
    """Whether the time for which the finished *job* is to be kept has passed."""
    return job.keep_until is not None and job.keep_until <= now
