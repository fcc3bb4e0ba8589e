"""P11 Idle is cheap, waking is fast: signals cross handles and processes, and a reply says when to look next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from dayjob.states import Outcome
from dayjob.store.contract import Listener, Store
from dayjob.store.records import Cancel
from tests.contract import child
from tests.contract.scene import Scene

PATIENCE = 5.0
"""Real seconds until a signal that should take milliseconds counts as lost."""

TOPICS = ("work", "control", "done", "event")


def heard(ear: Listener, wanted: tuple[str, bytes]) -> bool:
    """Listen until *wanted* comes."""
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        if wanted in ear.wait(left):
            return True
    return False


@pytest.fixture
def ear(store: Store) -> Iterator[Listener]:
    """An ear for everything."""
    with closing(store.listen(TOPICS)) as listener:
        yield listener


@pytest.fixture(autouse=True)
def _signals_cross(engine: object, store: Store) -> None:
    if store.polls:
        pytest.skip("this engine's users poll")


class TestP11Signals:
    @pytest.mark.parametrize("topic", TOPICS)
    def test_a_signal_reaches_a_listener_on_another_handle(self, ear: Listener, other: Store, topic: str) -> None:
        other.notify(topic, b"data")

        assert heard(ear, (topic, b"data"))

    @pytest.mark.processes
    def test_a_signal_reaches_a_listener_in_another_process(self, scene: Scene, ear: Listener) -> None:
        if not scene.engine.processes:
            pytest.skip("only this process can open it")

        with child.started("notify", scene.engine.url, "work", "default") as notifier:
            child.go(notifier)
            assert heard(ear, ("work", b"default"))

    def test_a_signal_reaches_every_listener(self, store: Store, other: Store) -> None:
        with closing(store.listen(["work"])) as one, closing(other.listen(["work", "done"])) as two:
            store.notify("work", b"x")

            assert heard(one, ("work", b"x"))
            assert heard(two, ("work", b"x"))

    def test_only_the_topics_asked_for_are_heard(self, store: Store) -> None:
        with closing(store.listen(["done"])) as ear:
            store.notify("work", b"no")
            store.notify("control", b"no")
            store.notify("done", b"yes")

            assert ear.wait(PATIENCE) == [("done", b"yes")]
            assert ear.wait(0) == []

    @pytest.mark.parametrize("data", [b"", b"caf\xc3\xa9", bytes(range(256)), b"x" * 8000], ids=len)
    def test_the_data_of_a_signal_is_untouched(self, store: Store, ear: Listener, data: bytes) -> None:
        store.notify("event", data)

        assert heard(ear, ("event", data))

    def test_signals_sent_before_the_wait_are_not_lost(self, store: Store, ear: Listener) -> None:
        for n in range(5):
            store.notify("work", b"%d" % n)

        got: list[tuple[str, bytes]] = []
        while len(got) < 5:
            batch = ear.wait(PATIENCE)
            assert batch, "signals were lost"
            got += batch
        assert sorted(got) == [("work", b"%d" % n) for n in range(5)]

    def test_a_waiting_listener_wakes_within_milliseconds(self, store: Store, ear: Listener) -> None:
        took = []
        for _ in range(20):
            began = time.perf_counter()
            timer = threading.Timer(0.01, store.notify, ("work", b"x"))
            timer.start()
            assert heard(ear, ("work", b"x"))
            took.append(time.perf_counter() - began - 0.01)
            timer.join()

        assert sorted(took)[10] < 0.05

    def test_silence_ends_with_the_time(self, ear: Listener) -> None:
        began = time.monotonic()

        assert ear.wait(0.05) == []
        assert 0.04 <= time.monotonic() - began < PATIENCE
        assert ear.wait(0) == []

    def test_wake_ends_the_wait_of_another_thread(self, ear: Listener) -> None:
        answers: list[list[tuple[str, bytes]]] = []
        waiter = threading.Thread(target=lambda: answers.append(ear.wait(60.0)))
        waiter.start()
        ear.wake()
        waiter.join(PATIENCE)

        assert answers == [[]]

    def test_wake_before_the_wait_ends_the_next_one(self, ear: Listener) -> None:
        ear.wake()
        began = time.monotonic()

        assert ear.wait(60.0) == []
        assert time.monotonic() - began < PATIENCE

    def test_listening_says_no_only_when_surely_nobody_listens(self, store: Store, other: Store) -> None:
        with closing(store.listen(["event"])):
            assert other.listening("event") is True
            assert store.listening("event") is True

    def test_a_signal_that_nobody_hears_costs_nothing_and_raises_nothing(self, store: Store) -> None:
        began = time.perf_counter()
        for _ in range(200):
            store.notify("work", b"x")
            store.listening("event")

        assert time.perf_counter() - began < PATIENCE

    def test_a_listener_that_does_not_read_blocks_nobody(self, store: Store, ear: Listener) -> None:
        began = time.perf_counter()
        for _ in range(1000):  # each may be a round trip
            store.notify("work", b"x" * 5000)

        assert time.perf_counter() - began < PATIENCE
        assert ear.wait(PATIENCE) != []

    def test_a_signal_too_large_to_send_raises_nothing(self, store: Store, ear: Listener) -> None:
        store.notify("event", b"x" * 5_000_000)
        store.notify("work", b"after")

        assert heard(ear, ("work", b"after"))

    def test_closing_is_idempotent_and_ends_a_wait(self, store: Store) -> None:
        ear = store.listen(["work"])
        waiter = threading.Thread(target=ear.wait, args=(60.0,))
        waiter.start()
        ear.close()
        ear.close()
        waiter.join(PATIENCE)

        assert not waiter.is_alive()
        store.notify("work", b"nobody is there")

    def test_many_listeners_come_and_go(self, store: Store, ear: Listener) -> None:
        for _ in range(50):
            store.listen(["work"]).close()
        store.notify("work", b"x")

        assert heard(ear, ("work", b"x"))


class TestP11LookingNext:
    """P11: a turn's reply tells an idle worker when to look next, and a busy one that there is news."""

    def test_a_turn_tells_when_the_next_job_is_due(self, scene: Scene) -> None:
        ann = scene.worker()
        assert ann.turn().next_due is None
        scene.job(delay=60.0)
        scene.job(delay=30.0, queue="other")
        scene.job()

        assert ann.turn().next_due == scene.stamp(30)

    def test_a_settlement_that_makes_a_job_wait_shows_in_the_same_reply(self, scene: Scene) -> None:
        ann, id = scene.worker(), scene.job()
        turn = ann.settle(ann.take(id), Outcome.FAILED, delay=7.0)

        assert turn.next_due == scene.stamp(7)

    def test_what_was_staged_is_not_due_any_more(self, scene: Scene) -> None:
        scene.job(delay=30.0)
        scene.job(delay=60.0)
        later = scene.stamp(60)
        scene.advance(30)

        assert scene.worker().turn().next_due == later

    def test_the_leader_learns_the_next_due_time_from_staging(self, scene: Scene) -> None:
        for seconds in (10.0, 20.0, 30.0):
            scene.job(delay=seconds)
        start = scene.now
        scene.advance(20)

        assert scene.store.stage(scene.term, limit=1, now=scene.now) == (1, start + 20_000_000)
        assert scene.store.stage(scene.term, limit=9, now=scene.now) == (1, start + 30_000_000)
        assert scene.store.stage(scene.term, now=scene.now) == (0, start + 30_000_000)

    def test_staging_everything_leaves_nothing_due(self, scene: Scene) -> None:
        scene.jobs(3, delay=1.0)
        scene.advance(1)

        assert scene.store.stage(scene.term, now=scene.now) == (3, None)

    def test_an_idle_turn_changes_nothing(self, scene: Scene) -> None:
        ann = scene.worker()
        scene.job(delay=60.0)
        first = ann.turn(wants=[ann.want()])

        assert [ann.turn(wants=[ann.want()]) for _ in range(5)] == [first] * 5

    def test_a_cancel_and_a_pause_are_news_within_one_round_trip(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.take(id)
        seen = [ann.turn().control]
        scene.act(Cancel(), id)
        seen.append(ann.turn().control)
        scene.store.pause("default", True, now=scene.now)
        seen.append(ann.turn().control)

        assert len(set(seen)) == 3
        beat = ann.beat()
        assert (beat.control, len(beat.cancelled), beat.paused) == (seen[-1], 1, frozenset({"default"}))
