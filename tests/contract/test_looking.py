"""Looking: pages without gaps while jobs move, filters that mean what they say, queues, history."""

from __future__ import annotations

import random
import threading
from itertools import chain

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from dayjob.store.contract import Store
from dayjob.store.records import Cancel, Delete, Filter, Page, Retry, Tally
from tests.contract.ids import named
from tests.contract.scene import Scene

ENDS = [Outcome.COMPLETED, Outcome.DEAD, Outcome.CANCELLED]
MINUTE = 60 * SECOND


def pages(store: Store, which: Filter | None = None, limit: int = 3) -> list[Page]:
    """All pages, by the keys that the store gives."""
    got, after = [], None
    while True:
        page = store.find(which or Filter(), limit=limit, after=after)
        got.append(page)
        if page.after is None:
            return got
        after = page.after


def listed(store: Store, which: Filter | None = None, limit: int = 3) -> list[str]:
    return [job.id for page in pages(store, which, limit) for job in page.jobs]


def found(scene: Scene, **conditions: object) -> list[str]:
    """The ids that match, by `find` and by `count`, which must agree."""
    which = Filter(**conditions)  # type: ignore[arg-type]
    ids = listed(scene.store, which, limit=1000)
    assert scene.store.count(which) == len(ids)
    assert listed(scene.store, which, limit=1) == ids
    return sorted(ids)


class TestPages:
    def test_pages_list_every_job_once_newest_first(self, scene: Scene) -> None:
        ids = scene.jobs(10)
        for limit in (1, 3, 5, 9, 10, 11):
            assert listed(scene.store, limit=limit) == ids[::-1]

    def test_pages_mix_live_and_finished_jobs_by_id(self, scene: Scene) -> None:
        ids, ann = scene.jobs(9), scene.worker()
        for n, job in enumerate(ann.claim(6)):
            if n % 2:
                ann.settle(job, ENDS[n // 2])

        assert listed(scene.store, limit=2) == ids[::-1]

    def test_no_page_is_longer_than_its_limit_and_only_the_last_ends(self, scene: Scene) -> None:
        scene.jobs(7)
        got = pages(scene.store, limit=3)

        assert [len(page.jobs) for page in got] == [3, 3, 1]
        assert [page.after is None for page in got] == [False, False, True]

    def test_a_last_full_page_needs_no_empty_one_to_end(self, scene: Scene) -> None:
        scene.jobs(6)

        assert len([page for page in pages(scene.store, limit=3) if page.jobs]) == 2

    def test_an_empty_store_has_one_empty_page(self, scene: Scene) -> None:
        assert scene.store.find(Filter()) == Page([], None)

    @pytest.mark.parametrize("seed", range(3))
    def test_jobs_that_move_while_pages_are_read_are_neither_doubled_nor_left_out(
        self, scene: Scene, seed: int
    ) -> None:
        rng = random.Random(seed)
        ids, ann = scene.jobs(30), scene.worker()
        seen, after = [], None
        while True:
            page = scene.store.find(Filter(), limit=4, after=after)
            seen += [job.id for job in page.jobs]
            for job in ann.claim(3):
                ann.settle(job, rng.choice(list(Outcome)), delay=0.0)
            scene.act(Retry(), states=(rng.choice([State.COMPLETED, State.DEAD]),), limit=2)
            scene.act(Cancel(), states=(State.AVAILABLE,), limit=1)
            scene.job()
            if page.after is None:
                break
            after = page.after

        assert seen == ids[::-1]

    def test_a_page_read_while_a_job_moves_shows_it_once(self, scene: Scene, other: Store) -> None:
        # Live and finished jobs may lie apart: a page must see one moment, or the mover is seen twice or not at all.
        ids, ann = scene.jobs(3), scene.worker(store=other)
        stop = threading.Event()

        def move() -> None:
            while not stop.is_set():
                for job in ann.claim(3):
                    ann.settle(job)
                other.act(Filter(states=(State.COMPLETED,)), Retry(), now=scene.now)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            for _ in range(150):
                assert [job.id for job in scene.store.find(Filter(), limit=10).jobs] == ids[::-1]
                assert scene.store.count(Filter()) == 3
                assert all(scene.store.get(id) is not None for id in ids)
        finally:
            stop.set()
            mover.join()

    def test_rows_of_a_page_are_whole_but_for_their_attempts(self, scene: Scene) -> None:
        id, ann = scene.job(payload=b"p", tags='["t"]', meta='{"m":1}', priority=3, max_attempts=4), scene.worker()
        done = scene.job(payload=b"q", expires=60.0, options=b"o")
        ann.fail(ann.take(id), delay=60.0)
        ann.settle(ann.take(done), result=b"r", keep=60.0)

        for row in scene.store.find(Filter()).jobs:
            whole = scene.get(row.id)
            whole.attempts = []
            assert row == whole

    def test_a_key_whose_job_is_gone_still_leads_on(self, scene: Scene) -> None:
        ids = scene.jobs(6)
        first = scene.store.find(Filter(), limit=2)
        scene.act(Delete(), *ids[4:])

        assert first.after is not None
        assert [job.id for job in scene.store.find(Filter(), limit=9, after=first.after).jobs] == ids[3::-1]


class TestFilters:
    def test_states(self, scene: Scene) -> None:
        cast: dict[State, list[str]] = {state: [] for state in State}
        ann = scene.worker()
        for _ in range(2):
            for end in ENDS:
                id = scene.job()
                ann.settle(ann.take(id), end)
                cast[State(end.value)].append(id)
            running = scene.job()
            ann.take(running)
            cast[State.RUNNING].append(running)
        for _ in range(2):
            cast[State.SCHEDULED].append(scene.job(delay=60.0))
            cast[State.AVAILABLE].append(scene.job())

        for state in State:
            assert found(scene, states=(state,)) == cast[state]
        some = (State.DEAD, State.RUNNING, State.SCHEDULED)
        assert found(scene, states=some) == sorted(id for state in some for id in cast[state])
        assert found(scene, states=tuple(State)) == found(scene) == sorted(chain(*cast.values()))

    @pytest.mark.parametrize("finish", [False, True])
    def test_queue_task_and_ids(self, scene: Scene, finish: bool) -> None:
        mail, web, both = scene.job(queue="mail"), scene.job(task="web"), scene.job(queue="mail", task="web")
        if finish:
            ann = scene.worker()
            for job in ann.claim():
                ann.settle(job, Outcome.DEAD)

        assert found(scene, queue="mail") == [mail, both]
        assert found(scene, task="web") == [web, both]
        assert found(scene, queue="mail", task="web") == [both]
        assert found(scene, queue="mai") == found(scene, queue="") == found(scene, task="w%") == []
        assert found(scene, ids=(mail, web, "no-such-job", mail)) == [mail, web]
        assert found(scene, ids=()) == []
        assert found(scene, ids=(mail, web), task="web") == [web]

    @pytest.mark.parametrize("finish", [False, True])
    def test_a_tag_is_matched_whole(self, scene: Scene, finish: bool) -> None:
        vip = scene.job(tags='["vip","new"]')
        scene.job(tags='["vip2"]')
        scene.job(meta='{"tag":"vip"}')
        scene.job(tags="[]")
        odd = scene.job(tags='["a\\"b","100%","caf\\u00e9","\\u2603"]')
        if finish:
            ann = scene.worker()
            for job in ann.claim():
                ann.settle(job, Outcome.COMPLETED)

        assert found(scene, tag="vip") == found(scene, tag="new") == [vip]
        for tag in ('a"b', "100%", "caf\u00e9", "\u2603"):
            assert found(scene, tag=tag) == [odd]
        for tag in ("vi", "", "%", '"vip"', "vip,new"):
            assert found(scene, tag=tag) == []

    def test_since_is_the_moment_of_creation_and_includes_it(self, scene: Scene) -> None:
        scene.job()
        scene.advance(10)
        new = scene.job(delay=60.0)

        assert found(scene, since=scene.now) == [new]
        assert found(scene, since=scene.now + 1) == []
        assert len(found(scene, since=scene.now - 10 * SECOND)) == 2

    @pytest.mark.parametrize("finish", [False, True])
    def test_text_is_sought_in_id_task_tags_and_meta_and_not_in_payloads(self, scene: Scene, finish: bool) -> None:
        id = scene.job(id=named("needle"))
        task = scene.job(task="shop.needle.charge")
        tags = scene.job(tags='["needles"]')
        meta = scene.job(meta='{"by":"the needle"}')
        scene.job(payload=b"needle", queue="needle", options=b"needle")
        if finish:
            ann = scene.worker()
            for job in ann.claim():
                ann.settle(job, Outcome.DEAD, error=b"needle", reason="needle")

        assert found(scene, text="needle") == sorted([task, tags, meta])
        assert found(scene, text=id[4:20]) == [id]

    @pytest.mark.parametrize("text", ["100%", "a_b", "c*d", "[e]", "f?g", "back\\\\slash", "quo'te"])
    def test_wildcards_in_a_text_are_plain_characters(self, scene: Scene, text: str) -> None:
        hit = scene.job(meta=f'{{"x":"{text}"}}')
        scene.job(meta='{"x":"100 axb ccd e fgg backslash quote"}')

        assert found(scene, text=text) == [hit]

    def test_a_text_does_not_span_two_fields(self, scene: Scene) -> None:
        end = scene.job(task="bbb", tags='["ccc"]')[-4:]

        for text in (f"{end}bbb", f"{end} bbb", "bbb [", f"{end}|bbb"):
            assert found(scene, text=text) == []

    def test_counts_of_an_unknown_thing_are_zero(self, scene: Scene) -> None:
        scene.job()

        assert scene.store.count(Filter(queue="nothing")) == 0
        assert scene.store.get("no-such-job") is None
        assert scene.store.logs("no-such-job") == []


class TestQueues:
    def test_queues_are_listed_by_name_with_counts_by_state(self, scene: Scene) -> None:
        ann = scene.worker()
        for end in [*ENDS, Outcome.COMPLETED]:
            ann.settle(ann.take(scene.job(queue="mail")), end)
        ann.take(scene.job(queue="mail"))
        scene.jobs(2, queue="mail")
        scene.jobs(3, queue="mail", delay=60.0)
        scene.job(queue="bulk", delay=60.0)

        rows = scene.store.queues(now=scene.now)

        assert [row.name for row in rows] == ["bulk", "mail"]
        assert {state: n for state, n in rows[1].counts.items() if n} == {
            "scheduled": 3,
            "available": 2,
            "running": 1,
            "completed": 2,
            "cancelled": 1,
            "dead": 1,
        }
        assert {state: n for state, n in rows[0].counts.items() if n} == {"scheduled": 1}

    def test_suspects_count_as_available(self, scene: Scene) -> None:
        scene.jobs(3)
        ann = scene.worker("ann")
        ann.claim(2)
        ann.leave(death="signal 9")

        [row] = scene.store.queues(now=scene.now)
        assert row.counts["available"] == 3

    def test_a_queue_with_work_within_the_hour_is_listed_though_empty(self, scene: Scene) -> None:
        scene.worker().beat(tallies=[Tally("mail", "completed", 1)])

        assert [row.name for row in scene.store.queues(now=scene.now)] == ["mail"]
        scene.advance(3 * 3600)
        assert scene.store.queues(now=scene.now) == []

    def test_a_paused_queue_is_listed_though_empty(self, scene: Scene) -> None:
        scene.store.pause("mail", True, now=scene.now)
        scene.job(queue="web")

        assert [(row.name, row.paused) for row in scene.store.queues(now=scene.now)] == [("mail", True), ("web", False)]

    def test_p12_suspects_are_not_the_oldest(self, scene: Scene) -> None:
        scene.aged(crashes=1, queue="z")
        [row] = [row for row in scene.store.queues(now=scene.now) if row.name == "z"]

        assert (row.counts, row.oldest) == ({"available": 1}, None)

    def test_the_oldest_is_the_one_that_waits_longest_whatever_its_priority(self, scene: Scene) -> None:
        ann = scene.worker()
        first = scene.job(priority=-5)
        oldest = scene.now
        scene.advance(10)
        scene.job(priority=5)
        [row] = scene.store.queues(now=scene.now)
        assert row.oldest == oldest

        ann.settle(ann.take())
        ann.settle(ann.take(first))
        [row] = scene.store.queues(now=scene.now)
        assert row.oldest is None

    def test_a_job_that_was_due_later_waits_since_it_was_due(self, scene: Scene) -> None:
        scene.job(delay=60.0)
        due = scene.stamp(60)
        assert scene.store.queues(now=scene.now)[0].oldest is None
        scene.advance(100)
        scene.store.stage(scene.term, now=scene.now)

        assert scene.store.queues(now=scene.now)[0].oldest == due

    def test_a_job_retried_by_hand_waits_since_the_retry(self, scene: Scene) -> None:
        id, ann = scene.job(), scene.worker()
        ann.die(ann.take(id))
        scene.advance(1000)
        scene.act(Retry(), id)

        assert scene.store.queues(now=scene.now)[0].oldest == scene.now

    def test_rates_are_those_of_the_last_full_minute(self, scene: Scene) -> None:
        scene.now -= scene.now % MINUTE
        ann = scene.worker()
        ann.beat(tallies=[Tally("mail", "completed", 30), Tally("mail", "failed", 6)])
        scene.advance(30)
        ann.beat(tallies=[Tally("mail", "completed", 90)])
        scene.advance(30)
        ann.beat(tallies=[Tally("mail", "completed", 6000)])

        [row] = scene.store.queues(now=scene.now)
        assert (row.rates["completed"], row.rates["failed"]) == (2.0, 0.1)


class TestHistory:
    def test_a_sample_writes_down_the_depth_of_each_queue_by_state(self, scene: Scene) -> None:
        scene.jobs(3, queue="mail")
        scene.jobs(2, queue="mail", delay=60.0)
        scene.job(queue="web")
        scene.worker().claim(1, "mail")

        assert scene.store.sample(scene.term, now=scene.now) is True

        depth = {(s.queue, s.name): s.value for s in scene.store.history(0) if s.value and s.name.startswith("depth:")}
        assert depth == {
            ("mail", "depth:available"): 2,
            ("mail", "depth:running"): 1,
            ("mail", "depth:scheduled"): 2,
            ("web", "depth:available"): 1,
        }

    def test_there_is_one_sample_per_minute_queue_and_name(self, scene: Scene) -> None:
        scene.now -= scene.now % MINUTE
        scene.jobs(2)
        for _ in range(6):
            scene.store.sample(scene.term, now=scene.now)
            scene.leader.beat(tallies=[Tally("default", "completed", 1)])
            scene.advance(20)

        start = scene.stamp(-120)
        assert [(s.at, s.queue, s.name, s.value) for s in scene.store.history(0)] == [
            (start, "default", "completed", 3),
            (start, "default", "depth:available", 2),
            (start + MINUTE, "default", "completed", 3),
            (start + MINUTE, "default", "depth:available", 2),
        ]

    def test_history_is_in_order_and_begins_where_it_is_asked_to(self, scene: Scene) -> None:
        scene.now -= scene.now % MINUTE
        ann = scene.worker()
        for n in range(5):
            ann.beat(tallies=[Tally("mail", "completed", n + 1), Tally("web", "failed", 1)])
            scene.advance(60)

        whole = scene.store.history(0)
        assert [sample.at for sample in whole] == sorted(sample.at for sample in whole)
        assert [s.value for s in scene.store.history(scene.stamp(-120), "mail") if s.name == "completed"] == [4, 5]
        assert {sample.queue for sample in scene.store.history(0, "web")} == {"web"}
        assert scene.store.history(scene.now) == []
