"""What may happen between the steps of a copy: another copy, an outage, a user's hand, a kill, a day that passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dayjob.clock import SECOND
from dayjob.copier import Copier, Report, copier, history, steps, watch
from dayjob.errors import BadRow, ConfigError, StoreUnavailable
from dayjob.ids import new_id
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Bound, Cancel, Checkpoint, Delete, Filter, Lease, Retry, Settlement, Want, WorkerInfo
from tests.contract.engines import Postgres18, SqliteFile
from tests.copying.conftest import Pair, row, run_all


class Halted(BaseException):
    """The copy is killed here."""


class Hooked:
    """A store at which *method* is called by way of *hook*."""

    def __init__(self, store: Store, method: str, hook: Callable[..., Any]) -> None:
        self._store, self._method, self._hook = store, method, hook

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._method:
            return found
        return lambda *args, **kwargs: self._hook(found, *args, **kwargs)


def hooked(store: Store, method: str, hook: Callable[..., Any]) -> Store:
    return cast("Store", Hooked(store, method, hook))


def halts(call: Any, *args: Any, **kwargs: Any) -> Any:
    raise Halted


def halts_after(call: Any, *args: Any, **kwargs: Any) -> Any:
    call(*args, **kwargs)
    raise Halted


def stored(store: Store, count: int = 3, **fields: object) -> list[str]:
    rows = [row(**fields) for _ in range(count)]
    store.enqueue(rows)
    return [one.id for one in rows]


def halt(source: Store, target: Store, **options: bool) -> None:
    with pytest.raises(Halted):
        Copier(source, target, **options).run()


def end(store: Store, outcome: Outcome, keep: float | None = 9e5) -> list[str]:
    """Claim what is available, and settle it so."""
    ann = WorkerInfo(new_id(), "ann", "here", 1)
    store.beat(ann, ())
    claimed = store.turn(ann.id, 1, (), [Want(None, 1000)]).claimed
    now = store.now()
    store.turn(ann.id, None, [Settlement(job.id, job.entry, outcome, now, now, keep=keep) for job in claimed])
    store.leave(ann.id)
    return [job.id for job in claimed]


# -- two copies --------------------------------------------------------------------------------------------------


def test_a_copy_that_cancels_behind_the_back_of_a_later_one_loses_nothing(one_way: Pair) -> None:
    """The later one has taken out what the first announced, before it goes on."""
    source, target = one_way.source, one_way.target
    ids, reports, answer = stored(source), cast("list[Report]", []), cast("list[Any]", [])

    def act(call: Any, *args: Any, **kwargs: Any) -> Any:
        def queues(call_: Any) -> Any:
            if not answer:
                answer.append(call(*args, **kwargs))  # the first goes on, while the second is past its beginning
            return call_()

        reports.append(Copier(hooked(source, "queues", queues), target).run())
        return answer[0]

    with pytest.raises(ConfigError, match=r"another copy .* has begun"):
        Copier(hooked(source, "act", act), target).run()

    assert reports[0].whole
    assert sorted(run_all(target)) == sorted(ids)


# -- taken up later ----------------------------------------------------------------------------------------------


def test_an_idle_copy_that_is_killed_leaves_no_job_on_its_way(one_way: Pair) -> None:
    """Its last batch has arrived: called again days later, when that is forgotten, it must not deliver it again."""
    stored(one_way.source)
    one_way.source.beat(WorkerInfo(new_id(), "ann", "here", 1), ())
    halt(hooked(one_way.source, "workers", _second(halts)), one_way.target, live=True)
    assert len(run_all(one_way.target)) == 3

    [record] = one_way.source.list("copy")
    assert copier._journal(record.value).ids == []


def _second(hook: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[None] = []

    def called(call: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return hook(call, *args, **kwargs) if len(calls) == 2 else call(*args, **kwargs)

    return called


def test_what_ran_in_the_source_since_a_copy_was_killed_is_not_delivered(one_way: Pair) -> None:
    ids = stored(one_way.source)
    halt(one_way.source, hooked(one_way.target, "adopt", halts))
    one_way.source.act(Filter(ids=tuple(ids)), Retry())
    assert sorted(run_all(one_way.source)) == sorted(ids)
    Copier(one_way.source, one_way.target).run()

    assert run_all(one_way.target) == []
    assert one_way.target.count(Filter(states=(State.COMPLETED,))) == 3


def test_a_copy_that_stood_still_while_another_delivered_puts_nothing_back(one_way: Pair) -> None:
    """They have run there, and are forgotten: what it would refuse must not wait in the source again."""
    source, target = one_way.source, one_way.target
    ids, ran = stored(source), cast("list[str]", [])

    def adopt(call: Any, *args: Any, **kwargs: Any) -> Any:
        if not ran:
            Copier(source, target).run()
            ran.extend(end(target, Outcome.COMPLETED, keep=0.0))
        return call(*args, **kwargs)

    with pytest.raises(ConfigError, match=r"another copy .* has begun"):
        Copier(source, hooked(target, "adopt", adopt)).run()

    assert sorted(ran) == sorted(ids)
    assert run_all(source) == []


def test_a_cancel_whose_reply_was_lost_moves_nothing_that_has_run(
    one_way: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PAUSE", 0.0)
    ran: list[str] = []

    def act(call: Any, *args: Any, **kwargs: Any) -> Any:
        if not ran:
            ran.extend(end(one_way.source, Outcome.COMPLETED, keep=0.0))
            raise StoreUnavailable("the line is broken")
        return call(*args, **kwargs)

    ids = stored(one_way.source)
    report = Copier(hooked(one_way.source, "act", act), one_way.target).run()

    assert ran == ids
    assert run_all(one_way.target) == []
    assert report.counts["available"].left == 3


# -- bounds of retention -----------------------------------------------------------------------------------------


def prune(store: Store) -> None:
    """As a worker that keeps no cancelled jobs does."""
    leader = WorkerInfo(new_id(), "leader", "here", 1)
    term = store.beat(leader, ()).term
    assert term
    store.prune(term, [Bound(State.CANCELLED, 0)])
    store.leave(leader.id)


def test_a_bound_takes_nothing_that_is_on_its_way(pair: Pair) -> None:
    def act(call: Any, *args: Any, **kwargs: Any) -> Any:
        call(*args, **kwargs)
        prune(pair.source)
        raise Halted

    ids = stored(pair.source)
    halt(hooked(pair.source, "act", act), pair.target)
    report = Copier(pair.source, pair.target).run()

    assert report.whole
    assert sorted(run_all(pair.target)) == sorted(ids)


def test_what_comes_back_and_is_killed_on_the_way_is_not_taken_for_delivered(one_way: Pair) -> None:
    ids = stored(one_way.source)
    Copier(one_way.source, one_way.target).run()
    Copier(one_way.target, one_way.source).run()
    prune(one_way.target)
    halt(one_way.source, hooked(one_way.target, "adopt", halts))
    Copier(one_way.source, one_way.target).run()

    assert sorted(run_all(one_way.target)) == sorted(ids)


# -- what the target has already ---------------------------------------------------------------------------------


def test_a_job_that_was_retried_here_after_it_was_copied_stays_and_is_told(pair: Pair) -> None:
    [id] = stored(pair.source, 1)
    end(pair.source, Outcome.DEAD)
    Copier(pair.source, pair.target).run()
    pair.source.act(Filter(ids=(id,)), Retry())
    report = Copier(pair.source, pair.target).run()

    assert not report.whole
    assert "retried here" in report.problems[0].why
    assert run_all(pair.source) == [id]


def test_another_job_of_the_same_id_is_none_that_arrived(one_way: Pair) -> None:
    id = new_id()
    one_way.target.migrate()
    one_way.source.enqueue([row(id=id, payload=b"A")])
    one_way.target.enqueue([row(id=id, payload=b"B")])
    report = Copier(one_way.source, one_way.target).run()

    assert [one.why for one in report.problems] == ["the target has another job of this id"]
    assert [job.payload for job in one_way.source.find(Filter(states=(State.AVAILABLE,))).jobs] == [b"A"]


def test_a_refused_job_whose_memory_was_deleted_is_kept_until_it_can_go(one_way: Pair) -> None:
    """Nobody has it but the journal."""
    [id] = stored(one_way.source, 1)

    def adopt(call: Any, *args: Any, **kwargs: Any) -> Any:
        one_way.source.act(Filter(ids=(id,)), Delete())
        raise BadRow("too long")

    report = Copier(one_way.source, hooked(one_way.target, "adopt", adopt)).run()
    assert "kept in the record" in report.problems[0].why
    assert not report.whole
    again = Copier(one_way.source, one_way.target).run()

    assert again.whole
    assert run_all(one_way.target) == [id]


def test_a_job_that_is_finished_there_and_here_in_another_round_is_told(one_way: Pair) -> None:
    [id] = stored(one_way.source, 1)
    end(one_way.source, Outcome.DEAD)
    Copier(one_way.source, one_way.target).run()
    one_way.source.act(Filter(ids=(id,)), Retry())
    end(one_way.source, Outcome.COMPLETED)
    report = Copier(one_way.source, one_way.target).run()

    assert [problem.what for problem in report.problems] == [f"job {id}"]
    assert report.counts["completed"].refused == 1


def test_what_went_on_to_a_third_store_had_arrived(one_way: Pair, tmp_path: Path) -> None:
    ids, third = stored(one_way.source), open_store(f"sqlite:///{tmp_path}/third.db")
    halt(one_way.source, hooked(one_way.target, "adopt", halts_after))
    Copier(one_way.target, third).run()
    report = Copier(one_way.source, one_way.target).run()

    assert (report.whole, report.counts["available"].there) == (True, 3)
    assert run_all(one_way.target) == []
    assert run_all(third) == ids
    third.close()


def test_settled_history_does_not_come_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target has deleted it long ago. A new store at its address has it all."""
    monkeypatch.setattr(history, "REMEMBERED", 0)
    stored(pair.source)
    end(pair.source, Outcome.DEAD, keep=None)
    Copier(pair.source, pair.target).run()
    pair.target.act(Filter(), Delete())
    end_of_hour = hooked(pair.target, "adopt", lambda call, jobs: [_fail(one) for one in jobs])
    report = Copier(pair.source, end_of_hour).run()

    assert (report.whole, report.counts["dead"].there) == (True, 3)
    pair.target.erase("copied", pair.source.url)
    assert not Copier(pair.source, pair.target).plan().counts["dead"].there


def _fail(one: object) -> None:
    raise AssertionError(f"{one} came back")


def test_new_history_comes_over_after_the_first(one_way: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 0)
    for count in (2, 3):
        stored(one_way.source, count)
        end(one_way.source, Outcome.COMPLETED)
        assert Copier(one_way.source, one_way.target).run().counts["completed"].copied == count


def test_a_reason_that_only_looks_like_ours_is_history_like_any_other(one_way: Pair) -> None:
    [id] = stored(one_way.source, 1)
    one_way.source.act(Filter(ids=(id,)), Cancel("moved to https://plan.example/7"))

    assert Copier(one_way.source, one_way.target).run().counts["cancelled"].copied == 1


@pytest.mark.parametrize("pair", [(SqliteFile, Postgres18)], indirect=True, ids=["postgres-18"])
def test_a_name_that_the_target_cannot_hold_stops_nothing(pair: Pair) -> None:
    pair.source.pause("x\0y", True)
    pair.source.write("setting", "x\0y", b"1")
    ids = stored(pair.source)
    report = Copier(pair.source, pair.target).run()

    assert (report.counts["pauses"].refused, report.counts["records"].refused, len(report.problems)) == (1, 1, 2)
    assert sorted(run_all(pair.target)) == sorted(ids)


def test_interrupted_between_its_steps_it_says_what_is_on_its_way(one_way: Pair) -> None:
    stored(one_way.source, 5)
    copying = Copier(one_way.source, hooked(one_way.target, "adopt", halts))
    with pytest.raises(Halted):
        copying.run()
    report = copying.stopped()

    assert (report.on_way, report.waiting, report.whole) == (5, 0, False)


# -- large jobs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["payload", "checkpoint"])
def test_a_batch_is_no_larger_than_memory_bears(one_way: Pair, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(copier, "ENOUGH", 100_000)
    sizes: list[int] = []

    def adopt(call: Any, jobs: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(jobs))
        return call(jobs, *args, **kwargs)

    if where == "payload":
        stored(one_way.source, 10, payload=b"x" * 40_000)
    else:
        stored(one_way.source, 10)
        ann = WorkerInfo(new_id(), "ann", "here", 1)
        one_way.source.beat(ann, ())
        for job in one_way.source.turn(ann.id, 1, (), [Want(None, 10)]).claimed:
            one_way.source.record(Lease(ann.id, job.id, job.entry), [Checkpoint(b"x" * 40_000)])
        one_way.source.leave(ann.id)
    report = Copier(one_way.source, hooked(one_way.target, "adopt", adopt)).run()

    assert report.whole
    assert max(size for size in sizes) <= 5
    assert sum(sizes) == 10


def test_pages_are_short_where_jobs_are_large(one_way: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "FIRST", 5)
    monkeypatch.setattr(steps, "ENOUGH", 100_000)
    stored(one_way.source, 12, payload=b"x" * 40_000)

    assert [len(page) for page in steps.pages(one_way.source, Filter())] == [5, 2, 2, 2, 1]


# -- outages -----------------------------------------------------------------------------------------------------


class Beats:
    """A source with one worker, and time that passes when it is said."""

    def __init__(self, store: Store) -> None:
        self.store, self.now, self.slow = store, 0.0, 0.0
        self.worker = WorkerInfo(new_id(), "ann", "here", 1, expiry=20.0)
        self.stamp = store.now()
        self.beat()
        self.watch = watch.Watch(store, self._probe, lambda: self.now)

    def _probe(self) -> None:
        self.now += self.slow

    def beat(self) -> None:
        self.stamp += SECOND
        self.store.beat(self.worker, (), now=self.stamp)

    def looks(self, seconds: int) -> list[bool]:
        found = []
        for _ in range(seconds):
            self.now += 1
            found.append(self.watch.alone())
        return found


def test_a_worker_is_gone_when_it_was_seen_not_to_beat(one_way: Pair) -> None:
    beats = Beats(one_way.source)

    assert beats.looks(23).index(True) == 20
    assert one_way.source.workers() == []


def test_a_worker_that_beats_is_never_gone(one_way: Pair) -> None:
    beats = Beats(one_way.source)
    for _ in range(5):
        assert not any(beats.looks(15))
        beats.beat()


def test_a_store_that_takes_no_writes_kills_no_worker(one_way: Pair) -> None:
    beats = Beats(one_way.source)
    beats.slow = 5.0

    assert not any(beats.looks(60))
    beats.slow = 0.0
    assert beats.looks(25).index(True) > 8


def test_an_hour_in_which_nobody_looked_counts_as_a_moment(one_way: Pair) -> None:
    beats = Beats(one_way.source)
    beats.looks(1)
    beats.now += 3600

    assert not any(beats.looks(10))


@pytest.mark.parametrize("method", ["workers", "now", "count", "list", "queues"])
def test_no_blip_ends_a_copy(one_way: Pair, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(steps, "PAUSE", 0.0)
    monkeypatch.setattr(copier, "LOOK", 0.01)
    stored(one_way.source)
    one_way.source.write("once", "a", b"1", ttl=3600.0)
    begun: list[int] = []

    def blips(call: Any, *args: Any, **kwargs: Any) -> Any:
        begun.append(1)
        if len(begun) % 3 == 2:
            raise StoreUnavailable("the line is broken")
        return call(*args, **kwargs)

    copying = Copier(one_way.source, one_way.target, live=True)
    copying._check()
    copying._check = lambda: None  # type: ignore[method-assign]
    for part in (copying, copying._settings, copying._watch):
        part.source = hooked(one_way.source, method, blips)

    assert copying.run().whole
