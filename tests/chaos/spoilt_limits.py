"""Jobs of one key, one limit and one rate in a clean run, and the ways in which each could be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from tests.chaos.ledger import Plan

TOLD = "who is told of a key's holder is told the truth"

if TYPE_CHECKING:
    from tests.chaos.clean import Run

PLAN = Plan(unique="order:7", shares=("tenant:1", 1), rate=("stripe", 2, 2.0))


def limited(run: Run, worker: str, pid: int) -> None:
    """Four jobs, one after the other, a second apart; and one that was not stored, as the third was there."""
    for number, at in enumerate((17.0, 18.0, 19.0, 20.0)):
        id, entry = f"limited-{number}", 5000 + number
        run.enqueue(id, at, PLAN)
        run.note("claim", at + 0.04, pid, id=id, entry=entry, worker=worker, stamp=round((at + 0.04) * SECOND))
        run.start(id, at + 0.05, entry)
        run.finish(id, at + 0.06, entry)
        run.keep(id, at + 0.08)
    run.note("enqueue.tried", 19.03, pid, id="told", task="nap", plan={"unique": "order:7"})
    run.note("enqueue.existing", 19.04, pid, id="told", holder="limited-2", outcome="existing")


def _end_after_the_next_is_stored(run: Run) -> None:
    run.jobs["limited-1"].finished_at = round(19.03 * SECOND)


def _end_after_all_others(run: Run) -> None:
    run.jobs["limited-0"].finished_at = None


def _end_after_the_next_has_started(run: Run) -> None:
    run.jobs["limited-1"].finished_at = round(19.5 * SECOND)


def _claim_too_early(run: Run) -> None:
    run.facts_of("claim", id="limited-2")[0]["stamp"] = 18 * SECOND


def _tell_of_one_that_has_ended(run: Run) -> None:
    run.facts_of("enqueue.existing")[0]["holder"] = "limited-1"


def _tell_of_one_that_has_started(run: Run) -> None:
    for fact in run.facts_of("enqueue.tried", id="limited-2"):
        fact["plan"] = {**fact["plan"], "until": "started"}
    run.facts_of("claim", id="limited-2")[0]["at"] = 19.01


def _tell_of_one_whose_time_was_over(run: Run) -> None:
    run.facts_of("enqueue.tried", id="limited-2")[0]["plan"] |= {"ttl": 0.5}
    run.jobs["limited-2"].created_at = 18 * SECOND


def _end_leases_one_after_the_other(run: Run) -> None:
    """As the store was told."""
    for number, at in enumerate((17.5, 18.5, 20.5, 20.6)):
        run.note("lease.ended", at, 0, id=f"limited-{number}")


def _start_all_at_once(run: Run) -> None:
    for number in range(4):
        for what in ("claim", "start"):
            run.facts_of(what, id=f"limited-{number}")[0]["at"] = 19.0 + number / 10


SPOILT = [
    (_end_after_the_next_is_stored, "of a unique key one job is active"),
    (_end_after_all_others, "of a unique key one job is active"),
    (_end_after_the_next_has_started, "leases within their concurrency limit"),
    (_end_leases_one_after_the_other, "leases within their concurrency limit"),
    (_tell_of_one_that_has_ended, TOLD),
    (_tell_of_one_that_has_started, TOLD),
    (_tell_of_one_whose_time_was_over, TOLD),
    (_claim_too_early, "starts within their rate by the store's clock"),
    (_start_all_at_once, "starts within their rate by the ledger's clock"),
]
