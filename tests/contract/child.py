"""Another process on the same store, for the tests that need a real one: `python -m tests.contract.child VERB URL …`.

It says `ready`, waits for a line on its standard input so that several start together, does its work and prints one
JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dayjob.store import open_store
from dayjob.store.records import NewRow, Want, WorkerInfo
from tests.contract.gates.contest import told, work
from tests.contract.ids import named

ROOT = Path(__file__).parents[2]


def claim_all(url: str, name: str, now: str) -> list[str]:
    """Claim until nothing is left; the ids."""
    store, number = open_store(url), 0
    got: list[str] = []
    store.beat(WorkerInfo(id=name, name=name, host="child", pid=os.getpid()), [], now=int(now))
    while True:
        number += 1
        turn = store.turn(name, number, wants=[Want(None, 7)], now=int(now))
        if not turn.claimed:
            store.close()
            return got
        got += [job.id for job in turn.claimed]


def migrate(url: str) -> list[str]:
    """Migrate; the names of what was applied here."""
    store = open_store(url)
    applied = store.migrate()
    store.close()
    return applied


def enqueue_and_die(url: str, id: str, count: str, now: str) -> None:
    """Store *count* jobs and die at once, without closing or flushing anything but the answer."""
    store = open_store(url)
    rows = [NewRow(named(f"{id}-{n}"), "shop.charge", "default", b"{}") for n in range(int(count))]
    answers = store.enqueue(rows, now=int(now))
    sys.stdout.write(json.dumps([answer.outcome for answer in answers]))
    sys.stdout.flush()
    os._exit(9)


def enqueue(url: str, prefix: str, count: str, now: str) -> list[str]:
    """Store *count* jobs one by one; their outcomes."""
    store = open_store(url)
    rows = [NewRow(named(f"{prefix}{n}"), "shop.charge", "default", b"{}") for n in range(int(count))]
    outcomes: list[str] = [store.enqueue([row], repeat=True, now=int(now))[0].outcome for row in rows]
    store.close()
    return outcomes


def fork(url: str, now: str) -> int:
    """Fork with a store in use. Both store 20 jobs, the parent closes and ends its part, the child stores 20 more.

    Returns the child's exit status: 0 when everything it stored was acknowledged.
    """
    store = open_store(url)
    store.enqueue([NewRow(named("before"), "shop.charge", "default", b"{}")], now=int(now))
    hears, closes = os.pipe()
    pid = os.fork()
    who = "parent" if pid else "child"
    for n in range(20):
        store.enqueue([NewRow(named(f"{who}{n}"), "shop.charge", "default", b"{}")], now=int(now))
    if not pid:
        os.close(closes)
        os.read(hears, 1)  # until the parent has closed its store
        for n in range(20):
            store.enqueue([NewRow(named(f"late{n}"), "shop.charge", "default", b"{}")], now=int(now))
        os._exit(0)
    store.close()
    os.close(closes)
    return os.waitpid(pid, 0)[1]


def notify(url: str, topic: str, data: str) -> None:
    """Signal once."""
    store = open_store(url)
    store.notify(topic, data.encode())
    store.close()


def contest(url: str, name: str, seed: str) -> list[dict[str, object]]:
    """Work until nothing is left; what ran when."""
    store = open_store(url)
    runs = work(store, name, int(seed))
    store.close()
    return told(runs)


VERBS: dict[str, Callable[..., object]] = {
    verb.__name__: verb for verb in (claim_all, migrate, enqueue_and_die, enqueue, fork, notify, contest)
}


@contextmanager
def started(verb: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A child that is ready to do *verb* and waits for `go`."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.contract.child", verb, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            child.kill()


def go(child: subprocess.Popen[str]) -> None:
    """Let a child begin."""
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def answer(child: subprocess.Popen[str]) -> object:
    """What a child printed; it has ended then."""
    assert child.stdout is not None
    return json.loads(child.stdout.read())


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    answer = VERBS[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
