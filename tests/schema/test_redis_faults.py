"""What a server can do to the engine, and what others can do to its keys: told in words, mended by repeating."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress

import pytest

from dayjob.errors import BadRow, SchemaMismatch, StoreError, StoreUnavailable
from dayjob.states import Outcome, State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Bound, Cancel, Checkpoint, Delete, Edit, Filter, Lease, Log, Retry, Settlement, Want
from dayjob.store.redis import scripts
from dayjob.store.redis.address import Parser
from dayjob.store.redis.scripts import script
from tests.contract.engines import Redis
from tests.contract.ids import numbered
from tests.contract.scene import Scene
from tests.garbage import none_left
from tests.schema.redis_place import do, place, scene
from tests.servers.proxy import Proxy
from tests.servers.wire.redis import RedisWire

__all__ = ["place", "scene"]

BUSY = "while true do end"
CROWD = """
import os, sys, threading
from contextlib import closing
from pathlib import Path
from dayjob.store import open_store

THREADS = 16
turn = threading.Barrier(THREADS + 1, timeout=30)

def work():
    for _ in range(5):
        store.server.connect().disconnect()
    turn.wait()
    turn.wait()

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

with closing(open_store(sys.argv[1])) as store:
    store.server.connect().disconnect()
    before = held()
    for _ in range(THREADS):
        threading.Thread(target=work).start()
    turn.wait()
    print(held() - before)
    turn.wait()
"""
"""Each of 16 threads connects a few times; prints by how many bytes the process has grown."""


def test_scripts_that_the_server_has_forgotten_are_told_again(scene: Scene, place: Redis) -> None:
    scene.job()
    do(place, "SCRIPT", "FLUSH")
    id = scene.job()

    assert scene.worker().ids()[1] == id


def test_scripts_are_not_among_those_that_the_server_forgets_by_itself(scene: Scene, place: Redis) -> None:
    """Valkey 9 and Redis 7.4 keep the last 500 that came by EVAL."""
    do(place, "SCRIPT", "FLUSH")
    scene.job()
    for number in range(600):
        do(place, "EVAL", f"return {number}", 0)

    assert do(place, "SCRIPT", "EXISTS", script("enqueue", "{dayjob}:").sha) == [True]


def test_a_user_who_may_not_load_scripts_has_them_run_all_the_same(scene: Scene, place: Redis) -> None:
    place.server.do("ACL", "SETUSER", "bare", "on", ">right", "~*", "&*", "+@all", "-script")
    do(place, "SCRIPT", "FLUSH")
    with closing(open_store(place.server.url(place.database, user="bare:right"))) as store:
        assert [one.outcome for one in store.enqueue([scene.row()], now=scene.now)] == ["inserted"]
    place.server.do("ACL", "DELUSER", "bare")


def test_connections_that_were_killed_while_idle_are_not_used(scene: Scene, place: Redis) -> None:
    scene.job()
    time.sleep(0.6)  # until a connection counts as stale
    do(place, "CLIENT", "KILL", "TYPE", "normal")

    assert len(scene.worker().ids()) == 1


def test_broken_lines_leave_nothing_to_the_garbage_collector(place: Redis) -> None:
    """It counts small objects, and comes by late: behind each line there is a buffer of 256 kB."""
    place.store().close()
    with none_left(Parser, StoreUnavailable), closing(place.open()) as store:
        for kind in ("normal", "pubsub"):
            with closing(store.listen(["work"])) as ear, suppress(StoreUnavailable):
                store.count(Filter())
                do(place, "CLIENT", "KILL", "TYPE", kind)
                store.count(Filter())
                ear.wait(5.0)


def test_threads_that_have_once_connected_keep_no_buffers(place: Redis) -> None:
    """The C library's heap has a part for each thread, and what was freed in one serves no other: 4 MB, where 16 connect."""
    place.store().close()
    grown = int(subprocess.run([sys.executable, "-c", CROWD, place.url], stdout=subprocess.PIPE, check=True).stdout)

    assert grown < 2 << 20


def test_a_process_without_descriptors_needs_no_file_for_what_it_does_first_then(
    place: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.store().close()
    scripts.sources.cache_clear()
    scripts.script.cache_clear()
    with closing(place.open()) as store:
        monkeypatch.delattr(scripts, "files")

        assert store.get(numbered(1)) is None


def test_a_replica_refuses_with_what_to_do_and_promotion_heals(scene: Scene, place: Redis) -> None:
    with place.outage(), pytest.raises(StoreUnavailable, match="replica"):
        scene.job()

    assert scene.state(scene.job()) is State.AVAILABLE


def test_full_memory_refuses_before_anything_is_written(scene: Scene, place: Redis) -> None:
    scene.job()
    before = do(place, "DBSIZE"), do(place, "HGETALL", "{dayjob}:meta")
    with place.server.set(maxmemory="1mb"), pytest.raises(StoreUnavailable, match="memory is full"):
        scene.job()

    assert (do(place, "DBSIZE"), do(place, "HGETALL", "{dayjob}:meta")) == before
    assert scene.state(scene.job()) is State.AVAILABLE


def test_full_memory_is_drained(scene: Scene, place: Redis) -> None:
    """All that makes room, and all that keeps those alive who do, works while nothing more can be stored."""
    ann = scene.worker("ann")
    held = [ann.take(scene.job()) for _ in range(4)]
    waiting, (later, _) = scene.jobs(6), scene.jobs(2, delay=60.0)
    scene.jobs(2, delay=5.0)
    with place.server.set(maxmemory="1mb"):
        scene.advance(10)
        assert not ann.beat().lost
        assert ann.fail(held[0])
        assert ann.settled(held[1], Outcome.SNOOZED, delay=5.0)
        assert ann.die(held[2])
        assert ann.settled(held[3], keep=0.0)
        assert scene.store.stage(scene.term, now=scene.now) == (0, scene.stamp(5.0))  # a turn has staged what was due
        assert scene.act(Cancel(keep=0.0), later, waiting[0]) == [later, waiting[0]]
        assert scene.store.pause("other", True)
        assert len(ann.claim(20)) == 7
        assert len(scene.store.leave("worker-ann", death="signal 9", now=scene.now).jobs) == 7  # type: ignore[union-attr]
        assert scene.worker("bob").beat().lost is False


def test_somebody_elses_script_that_keeps_the_server_busy_is_told(scene: Scene, place: Redis) -> None:
    code = f"import redis; redis.Redis(port={place.server.port}, socket_timeout=40).eval({BUSY!r}, 0)"
    with place.server.set(lua_time_limit="50"):
        hog = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        try:
            with pytest.raises(StoreUnavailable, match="busy"):
                do_for(10.0, lambda: scene.store.count(Filter()))
        finally:
            do_until(lambda: place.server.do("SCRIPT", "KILL"))
            hog.wait(10)

    assert scene.state(scene.job()) is State.AVAILABLE


def do_for(seconds: float, call: Callable[[], object]) -> None:
    """Repeat *call* until it fails, or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        call()


def do_until(call: Callable[[], object]) -> None:
    """Repeat *call* until it is accepted."""
    for _ in range(200):
        try:
            call()
            return
        except Exception:
            time.sleep(0.02)
    raise AssertionError("it was never accepted")


def test_a_server_that_is_away_is_unavailable_and_comes_back(tmp_path: object, place: Redis) -> None:
    nobody = open_store("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        nobody.queues()


@pytest.mark.parametrize(
    "key", ["job", "ready:default", "ids", "run", "dyn", "end", "meta", "worker", "held:worker-ann", "due"]
)
def test_keys_deleted_by_someone_else_are_no_crash(scene: Scene, place: Redis, key: str) -> None:
    ann = scene.worker("ann")
    scene.jobs(3)
    scene.jobs(2, delay=60.0)
    held = ann.claim(1)
    do(place, "DEL", f"{{dayjob}}:{key}")

    try:
        ann.turn([ann.settlement(job, Outcome.FAILED, delay=1.0) for job in held], [ann.want()])
        ann.beat()
        scene.store.queues(now=scene.now)
        scene.store.find(Filter())
        scene.act(Cancel(), states=(State.AVAILABLE, State.SCHEDULED))
        scene.advance(61)
        scene.leader.beat()
        scene.store.stage(scene.leader.term or 0, now=scene.now)
        scene.store.prune(scene.leader.term or 0, [], now=scene.now)
        ann.leave(death="signal 9")
    except SchemaMismatch:
        assert key == "meta"
    else:
        assert key != "meta"


def test_a_namespace_whose_meta_was_deleted_goes_on(scene: Scene, place: Redis) -> None:
    """Entries and terms are not given twice, and who died is given up although live time begins again."""
    ann, bob, old_term = scene.worker("ann"), scene.worker("bob"), scene.term
    scene.jobs(3)
    first, second = ann.claim(1) + bob.claim(1)
    scene.pass_time(600, ann, bob)
    do(place, "DEL", "{dayjob}:meta")
    assert scene.store.migrate() == ["001_initial"]
    assert scene.store.migrate() == []

    assert ann.settled(first, Outcome.RELEASED)
    again = ann.take(first.id)
    assert again.entry > max(first.entry, second.entry)
    assert scene.store.stage(old_term, now=scene.now) is None
    scene.leader.beat()
    assert scene.leader.term is not None
    assert scene.leader.term > old_term
    gone = [one for _ in range(8) for one in scene.pass_time(10, ann)]
    assert [job.id for one in gone for job in one.jobs] == [second.id]


def test_jobs_whose_values_are_gone_are_counted(scene: Scene, place: Redis) -> None:
    gone, there = scene.jobs(2)
    do(place, "HDEL", "{dayjob}:job", gone)
    ann = scene.worker()

    assert ann.ids() == [there]
    assert [(s.name, s.value) for s in scene.store.history(0, "default")] == [("vanished", 1)]
    assert any("deleted" in warning for warning in scene.store.check().warnings)


def test_jobs_in_no_list_are_told_and_can_be_acted_on(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    scene.jobs(2)
    ann.settle(ann.take(), keep=60.0)
    ann.take()
    scene.job(delay=60.0)
    retried, cancelled, deleted, edited, left = scene.jobs(5)
    assert scene.store.check().warnings == []
    do(place, "DEL", "{dayjob}:ready:default")

    assert any("5 jobs neither wait nor run" in warning for warning in scene.store.check().warnings)
    assert scene.act(Retry(), retried) == [retried]
    assert scene.act(Cancel(), cancelled) == [cancelled]
    assert scene.act(Delete(), deleted) == [deleted]
    assert scene.act(Edit(priority=3), edited) == [edited]
    assert ann.ids() == [edited, retried]
    assert scene.state(cancelled) is State.CANCELLED
    assert any("1 jobs neither wait nor run" in warning for warning in scene.store.check().warnings)
    assert scene.act(Retry(), left) == [left]
    assert scene.store.check().warnings == []


def test_ends_that_somebody_deleted_do_not_hold_up_the_pruning_of_others(scene: Scene, place: Redis) -> None:
    ann = scene.worker()
    for keep in (1.0, None):
        for job in [ann.take(scene.job()) for _ in range(2)]:
            ann.settle(job, keep=keep)
    do(place, "DEL", "{dayjob}:end")
    kept = [scene.job(), scene.job()]
    for id in kept:
        ann.settle(ann.take(id), keep=1.0)
    scene.advance(2)

    pruned = [scene.store.prune(scene.term, [Bound(State.COMPLETED, 0)], limit=2, now=scene.now) for _ in range(4)]

    assert sum(number or 0 for number in pruned) == 2
    assert [scene.store.get(id) for id in kept] == [None, None]
    assert do(place, "EXISTS", "{dayjob}:keep", "{dayjob}:end:completed:default") == 0


def test_keys_of_another_kind_under_our_names_are_told(scene: Scene, place: Redis) -> None:
    do(place, "SET", "{dayjob}:ready:default", "mine")

    with pytest.raises(StoreError, match="another namespace"):
        scene.job()


OPERATIONS: dict[str, Callable[[Store, Scene], object]] = {
    "enqueue": lambda store, scene: store.enqueue([scene.row(id=scene.id())], now=scene.now),
    "turn": lambda store, scene: store.turn("worker-ann", 9, (), [Want(None, 1)], now=scene.now),
    "record": lambda store, scene: store.record(Lease("worker-ann", "x", 1), [Checkpoint(b"")], now=scene.now),
    "beat": lambda store, scene: store.beat(scene.leader.info, [], now=scene.now),
    "act": lambda store, scene: store.act(Filter(ids=("x",)), Cancel(), now=scene.now),
    "stage": lambda store, scene: store.stage(scene.term, now=scene.now),
    "rescue": lambda store, scene: store.rescue(scene.term, now=scene.now),
    "prune": lambda store, scene: store.prune(scene.term, [], now=scene.now),
    "sample": lambda store, scene: store.sample(scene.term, now=scene.now),
    "leave": lambda store, scene: store.leave("nobody", now=scene.now),
    "pause": lambda store, scene: store.pause("x", True),
    "get": lambda store, scene: store.get("x"),
    "find": lambda store, scene: store.find(Filter()),
    "count": lambda store, scene: store.count(Filter()),
    "queues": lambda store, scene: store.queues(now=scene.now),
    "workers": lambda store, scene: store.workers(),
    "logs": lambda store, scene: store.logs("x"),
    "history": lambda store, scene: store.history(0),
    "read": lambda store, scene: store.read("k", "x"),
    "write": lambda store, scene: store.write("k", "x", b""),
    "erase": lambda store, scene: store.erase("k", "x"),
    "now": lambda store, scene: store.now(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lost_reply_is_told_and_the_next_call_finds_a_new_connection(scene: Scene, place: Redis, name: str) -> None:
    operation = OPERATIONS[name]
    with Proxy(place.server.port, RedisWire) as line:
        store = open_store(place.server.url(place.database, port=line.port))
        store.queues()  # connected
        store.beat(scene.leader.info, [], now=scene.now)
        lost = line.lose_replies("")

        with pytest.raises(StoreUnavailable):
            operation(store, scene)
        assert lost.done.is_set()
        operation(store, scene)
        store.close()


def test_a_repeat_after_a_lost_reply_happens_once(scene: Scene, place: Redis) -> None:
    row, ann = scene.row(), scene.worker("ann")
    with Proxy(place.server.port, RedisWire) as line:
        store = open_store(place.server.url(place.database, port=line.port))
        store.queues()
        line.lose_replies("")
        with pytest.raises(StoreUnavailable):
            store.enqueue([row], now=scene.now)
        assert [one.outcome for one in store.enqueue([row], repeat=True, now=scene.now)] == ["existing"]

        line.lose_replies("")
        with pytest.raises(StoreUnavailable):
            store.turn(ann.id, 1, (), [ann.want()], now=scene.now)
        [job] = store.turn(ann.id, 1, (), [ann.want()], now=scene.now).claimed

        line.lose_replies("")
        done = [ann.settlement(job, Outcome.COMPLETED)]
        with pytest.raises(StoreUnavailable):
            store.turn(ann.id, None, done, now=scene.now)
        assert store.turn(ann.id, None, done, now=scene.now).refused == [(job.id, job.entry)]
        store.close()

    assert scene.state(row.id) is State.COMPLETED


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**53) - 1])
def test_integers_that_a_double_cannot_hold_pass_unchanged(scene: Scene, number: int) -> None:
    id, ann = scene.job(max_attempts=number), scene.worker()
    job = ann.take(id)
    ann.record(job, Log(number, "info", "x"))
    ann.settle(job, Outcome.DEAD, started_at=abs(number), finished_at=abs(number))

    row = scene.get(id)
    assert (job.max_attempts, row.max_attempts) == (number, number)
    assert (row.started_at, row.finished_at, row.attempts[0].finished_at) == (abs(number),) * 3
    assert scene.store.logs(id)[0].at == number


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 128},
        {"priority": -128},
        {"run_at": 2**53},
        {"queue": "\ud800"},
        {"delay": 1e12},
        {"delay": float("inf")},
        {"expires": 1e12},
        {"expires": float("nan")},
    ],
)
def test_what_has_no_room_is_refused_and_nothing_stored(scene: Scene, fields: dict[str, object]) -> None:
    with pytest.raises(BadRow):
        scene.job(**fields)

    assert scene.store.count(Filter()) == 0


@pytest.mark.parametrize("name", ["a:b", "{x}", "*", "[a-z]?", "%d+", "'@meta", "a b", "ready", "\u2603", "a\\0b\n"])
def test_names_with_glob_and_lua_characters_are_harmless(scene: Scene, name: str) -> None:
    id, ann = scene.job(queue=name, task=name), scene.worker(name)
    other = scene.job(queue="x")
    ann.settle(ann.claim(1, name)[0], Outcome.RELEASED)
    scene.store.pause(name, True, now=scene.now)
    assert ann.ids() == [other]
    scene.store.pause(name, False, now=scene.now)
    ann.die(ann.claim(1, name)[0], reason=name)

    row = scene.get(id)
    assert (row.queue, row.task, row.reason, row.worker, row.state) == (name, name, name, name, State.DEAD)
    assert {queue.name for queue in scene.store.queues(now=scene.now)} == {name, "x"}


def test_replicas_that_are_waited_for_and_are_not_there_leave_the_outcome_unknown(scene: Scene, place: Redis) -> None:
    store = open_store(f"{place.url}?wait_replicas=1&wait_ms=50")
    row = scene.row()
    with pytest.raises(StoreUnavailable, match="0 of the 1 replicas"):
        store.enqueue([row], now=scene.now)

    assert store.get(row.id) is not None
    store.close()


def test_who_only_mentions_something_does_not_wait_for_a_server_that_stands_still(scene: Scene, place: Redis) -> None:
    store = open_store(f"{place.url}?timeout=3")
    scene.store.notify("event", b"x")
    assert not store.listening("event")
    ear = scene.store.listen(["event"])
    with place.server.frozen():
        begun = time.monotonic()
        for _ in range(5):
            store.notify("event", b"lost")
            assert store.listening("event")
        took = time.monotonic() - begun
    assert store.get("no such job") is None
    store.notify("event", b"heard")
    heard = ear.wait(5.0)
    if heard == [("event", b"lost")]:  # it was written to the line, and read when the server went on
        heard = ear.wait(5.0)
    ear.close()
    store.close()

    assert heard[-1:] == [("event", b"heard")]
    assert took < 1.0


def test_a_write_may_wait_for_the_disk_where_the_server_can_say_when_it_is_there(scene: Scene, place: Redis) -> None:
    store = open_store(f"{place.url}?wait_fsync=yes&wait_ms=5000")
    row = scene.row()
    if place.name == "valkey-9":
        assert [one.outcome for one in store.enqueue([row], now=scene.now)] == ["inserted"]
    else:
        with pytest.raises(StoreError, match="too old"):
            store.enqueue([row], now=scene.now)
        assert store.get(row.id) is None
    store.close()


@pytest.mark.parametrize(("options", "denied"), [("wait_replicas=1", "-wait"), ("wait_fsync=yes", "-waitaof")])
def test_who_may_not_wait_writes_nothing(scene: Scene, place: Redis, options: str, denied: str) -> None:
    if denied == "-waitaof" and place.name != "valkey-9":
        pytest.skip("it has no WAITAOF")
    place.server.do("ACL", "SETUSER", "hasty", "on", ">right", "~*", "&*", "+@all", denied)
    row = scene.row()
    with closing(open_store(f"{place.server.url(place.database, user='hasty:right')}?{options}")) as store:
        with pytest.raises(StoreError, match="may not do that"):
            store.enqueue([row], now=scene.now)
        assert store.get(row.id) is None
    place.server.do("ACL", "DELUSER", "hasty")


def test_waiting_for_a_disk_that_is_not_written_to_writes_nothing_or_leaves_it_open(scene: Scene, place: Redis) -> None:
    if place.name != "valkey-9":
        pytest.skip("it has no WAITAOF")
    before, after = scene.row(), scene.row()
    with closing(open_store(f"{place.url}?wait_fsync=yes&wait_ms=5000")) as store:
        store.enqueue([scene.row()], now=scene.now)
        with place.server.set(appendonly="no"):
            with pytest.raises(StoreUnavailable, match="whether the write is safe"):
                store.enqueue([before], now=scene.now)
            with pytest.raises(StoreError, match="needs an append-only file"):
                store.enqueue([after], now=scene.now)
        assert (store.get(before.id) is not None, store.get(after.id)) == (True, None)


def test_a_stamp_of_more_than_64_bits_is_a_bad_row(scene: Scene) -> None:
    ann = scene.worker()
    job = ann.take(scene.job())
    with pytest.raises(BadRow):
        ann.turn([Settlement(job.id, job.entry, Outcome.FAILED, 1 << 70, 0)])

    assert ann.settled(job)


@pytest.mark.parametrize("delay", [1e12, float("inf"), float("nan")])
def test_a_delay_that_scripts_cannot_count_is_a_bad_row(scene: Scene, delay: float) -> None:
    """Redis 6.2 and 7.0 tell so far a time as 1e+18, which no turn could read."""
    ann = scene.worker()
    job = ann.take(scene.job())
    with pytest.raises(BadRow):
        ann.turn([ann.settlement(job, Outcome.SNOOZED, delay=delay)])

    assert ann.settled(job, Outcome.SNOOZED, delay=4e9)
    assert ann.turn().next_due == scene.stamp(4e9)


@pytest.mark.parametrize("edit", [Edit(run_at=2**53), Edit(priority=128), Edit(priority=-128)])
def test_an_edit_for_which_there_is_no_room_is_a_bad_row(scene: Scene, edit: Edit) -> None:
    id = scene.job(priority=7)
    with pytest.raises(BadRow):
        scene.act(edit, id)

    assert (scene.get(id).priority, scene.state(id)) == (7, State.AVAILABLE)


@pytest.mark.parametrize("keep", [1e12, float("inf")])
def test_an_end_that_is_kept_for_longer_than_can_be_counted_is_kept(scene: Scene, keep: float) -> None:
    ann = scene.worker()
    ids = scene.jobs(3)
    assert ann.settled(ann.take(ids[0]), keep=keep)
    assert ann.die(ann.take(ids[1]), keep=keep)
    scene.act(Cancel(keep=keep), ids[2])

    assert all(scene.get(id).keep_until == scene.now + 2**52 for id in ids)
