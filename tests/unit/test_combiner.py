"""The combining lock: one commit for all who wait, and an answer for each, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread

import pytest

from dayjob.combiner import Combiner
from dayjob.errors import JobExists, StoreError, StoreUnavailable
from dayjob.ids import new_id
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.gating import Conflict, Gating, Unique
from dayjob.store.records import Enqueued, Filter, NewRow


class Gate:
    """A real store whose commits are counted, can be held up, and can fail before or after they happened."""

    def __init__(self, store: Store) -> None:
        self.store, self.exclusive = store, store.exclusive
        self.batches: list[list[NewRow]] = []
        self.repeats: list[bool] = []
        self.signals: list[str] = []
        self.before: Callable[[Sequence[NewRow]], None] = lambda rows: None
        self.after: Callable[[Sequence[NewRow]], None] = lambda rows: None

    def enqueue(self, jobs: Sequence[NewRow], *, repeat: bool = False) -> list[Enqueued]:
        self.batches.append(list(jobs))
        self.repeats.append(repeat)
        self.before(jobs)
        outcomes = self.store.enqueue(jobs, repeat=repeat)
        self.after(jobs)
        return outcomes

    def notify(self, topic: str, data: bytes = b"") -> None:
        self.signals.append(f"{topic} {data.decode()}")
        self.store.notify(topic, data)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    store.migrate()
    return Gate(store)


def row(queue: str = "default", delay: float | None = None, id: str | None = None) -> NewRow:
    return NewRow(id or new_id(), "note", queue, b"{}", delay=delay)


def stored(gate: Gate) -> int:
    return gate.store.count(Filter())


def failing(times: int, error: BaseException) -> Callable[[Sequence[NewRow]], None]:
    left = [times]

    def fail(rows: Sequence[NewRow]) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return fail


def test_a_lone_caller_gets_a_commit_of_its_own(gate: Gate) -> None:
    outcomes = Combiner(lambda: gate).send([row()])

    assert [one.outcome for one in outcomes] == ["inserted"]
    assert [len(batch) for batch in gate.batches] == [1]


def test_callers_that_come_while_a_commit_runs_share_the_next_one(gate: Gate) -> None:
    combiner = Combiner(lambda: gate)
    running, finish = Event(), Event()

    def hold(rows: Sequence[NewRow]) -> None:
        running.set()
        finish.wait(10)

    gate.before = hold
    first = Thread(target=combiner.send, args=([row()],))
    first.start()
    running.wait(10)
    others = [Thread(target=combiner.send, args=([row()],)) for _ in range(20)]
    for thread in others:
        thread.start()
    while len(combiner._pending) < 20:
        pass
    finish.set()
    for thread in (first, *others):
        thread.join(10)

    assert [len(batch) for batch in gate.batches] == [1, 20]
    assert stored(gate) == 21


def test_a_batch_never_exceeds_a_thousand_and_never_splits_a_callers_thousand(gate: Gate) -> None:
    Combiner(lambda: gate).send([row() for _ in range(2_500)])

    assert [len(batch) for batch in gate.batches] == [1_000, 1_000, 500]
    assert stored(gate) == 2_500


def test_a_lost_reply_is_repeated_and_the_job_stored_once(gate: Gate) -> None:
    gate.after = failing(1, StoreUnavailable("the reply was lost"))
    outcomes = Combiner(lambda: gate).send([row(), row()])

    assert gate.repeats == [False, True]
    assert [one.outcome for one in outcomes] == ["inserted", "inserted"]
    assert stored(gate) == 2


@pytest.mark.parametrize("on_conflict", ["existing", "raise"])
def test_a_lost_reply_tells_a_key_of_ones_own_from_one_that_another_holds(gate: Gate, on_conflict: Conflict) -> None:
    def keyed(key: str) -> NewRow:
        return NewRow(new_id(), "note", "default", b"{}", gating=Gating(Unique(key * 32, key, on_conflict=on_conflict)))

    holder = keyed("a")
    gate.enqueue([holder])
    gate.after = failing(1, StoreUnavailable("the reply was lost"))
    mine, theirs = Combiner(lambda: gate).send([keyed("b"), keyed("a")])

    assert (mine.outcome, mine.id) == ("inserted", None)
    if on_conflict == "existing":
        assert (theirs.outcome, theirs.id) == ("existing", holder.id)
    else:
        assert isinstance(theirs.error, JobExists)
        assert theirs.error.id == holder.id
    assert stored(gate) == 2


def test_an_id_the_caller_chose_and_that_is_stored_is_existing(gate: Gate) -> None:
    mine = new_id()
    combiner = Combiner(lambda: gate)
    combiner.send([row(id=mine)], chosen=True)
    outcomes = combiner.send([row(id=mine)], chosen=True)

    assert [one.outcome for one in outcomes] == ["existing"]
    assert stored(gate) == 1


def test_patience_ends_and_the_caller_gets_the_error(gate: Gate) -> None:
    gate.before = failing(1_000_000, StoreUnavailable("down"))
    combiner = Combiner(lambda: gate, patience=0.1)
    with pytest.raises(StoreUnavailable, match="down"):
        combiner.send([row()])

    assert len(gate.batches) > 1
    gate.before = lambda rows: None
    combiner.send([row()])
    assert stored(gate) == 1


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_silent_line_is_asked_again_and_an_engine_that_waited_for_another_writer_is_not(
    gate: Gate, exclusive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dayjob.combiner.ENGINE_WAITED", 0.0)
    gate.exclusive = exclusive
    gate.before = failing(1, StoreUnavailable("after a long time"))
    with pytest.raises(StoreUnavailable) if exclusive else nullcontext():
        Combiner(lambda: gate).send([row()])

    assert stored(gate) == (0 if exclusive else 1)


def test_an_error_meets_only_the_caller_whose_rows_caused_it(gate: Gate) -> None:
    def refuse(rows: Sequence[NewRow]) -> None:
        if any(one.queue == "bad" for one in rows):
            raise StoreError("this row cannot be stored")

    gate.before = refuse
    combiner = Combiner(lambda: gate)
    tickets = [combiner.ticket([row(queue)], False) for queue in ("good", "bad", "fine")]
    combiner.commit(tickets)

    assert [ticket.error and str(ticket.error) for ticket in tickets] == [None, "this row cannot be stored", None]
    assert stored(gate) == 2


def test_an_interrupted_caller_strands_nobody(gate: Gate) -> None:
    gate.before = failing(1, KeyboardInterrupt())
    combiner = Combiner(lambda: gate)
    theirs = combiner.ticket([row()], False)
    combiner._pending.append(theirs)
    with pytest.raises(KeyboardInterrupt):
        combiner.send([row()])
    combiner.send([row()])

    assert theirs.done
    assert theirs.error is None
    assert stored(gate) == 2


def test_one_signal_per_queue_and_none_for_what_is_due_later(gate: Gate) -> None:
    combiner = Combiner(lambda: gate)
    combiner.send([row("a"), row("a"), row("b", delay=1.0), row("c", delay=60.0)])

    assert sorted(gate.signals) == ["work a", "work b"]


async def test_a_thousand_awaited_together_share_few_commits(gate: Gate) -> None:
    combiner = Combiner(lambda: gate)
    outcomes = await asyncio.gather(*(combiner.asend(row()) for _ in range(1_000)))

    assert [one.outcome for one in outcomes] == ["inserted"] * 1_000
    assert len(gate.batches) <= 2


async def test_the_loop_turns_while_the_store_hangs(gate: Gate) -> None:
    finish = Event()
    gate.before = lambda rows: None if finish.wait(10) else pytest.fail("held up")
    sending = asyncio.ensure_future(Combiner(lambda: gate).asend(row()))
    for _ in range(50):
        await asyncio.sleep(0)

    assert not sending.done()
    finish.set()
    assert (await sending).outcome == "inserted"


async def test_a_call_cancelled_before_take_off_stores_nothing(gate: Gate) -> None:
    combiner = Combiner(lambda: gate)
    call = combiner.asend(row())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await combiner.asend(row())

    assert stored(gate) == 1


async def test_each_awaiting_caller_gets_its_own_error(gate: Gate) -> None:
    def refuse(rows: Sequence[NewRow]) -> None:
        if any(one.queue == "bad" for one in rows):
            raise StoreError("this row cannot be stored")

    gate.before = refuse
    combiner = Combiner(lambda: gate)
    answers = await asyncio.gather(*(combiner.asend(row(q)) for q in ("good", "bad", "fine")), return_exceptions=True)

    assert [Enqueued, StoreError, Enqueued] == [type(answer) for answer in answers]


def test_many_threads_and_loops_at_once_lose_and_double_nothing(gate: Gate) -> None:
    combiner = Combiner(lambda: gate)

    def one_by_one() -> None:
        for _ in range(25):
            combiner.send([row()])

    async def together() -> None:
        await asyncio.gather(*(combiner.asend(row()) for _ in range(100)))

    threads = [Thread(target=one_by_one) for _ in range(8)]
    threads += [Thread(target=lambda: asyncio.run(together())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    assert stored(gate) == 8 * 25 + 3 * 100
    assert sum(map(len, gate.batches)) == 8 * 25 + 3 * 100


def test_a_child_forked_while_the_lock_is_held_can_send(gate: Gate) -> None:
    combiner = Combiner(lambda: gate)
    with combiner._lock:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                combiner.send([row()])
                status = 0
            finally:
                os._exit(status)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert stored(gate) == 1
