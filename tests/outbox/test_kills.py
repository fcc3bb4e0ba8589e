"""`kill -9` of producers and relays, at any moment: every committed effect has exactly one job, in order, and no job is without one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.outbox.conftest import Scene

ROUNDS, PER_ROUND = 6, 60


@contextmanager
def relaying(scene: Scene, processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Two relays; whatever *processes* holds at the end is killed."""
    try:
        processes += [start_relay(scene), start_relay(scene)]
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start_relay(scene: Scene) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dayjob", "relay", "--from", scene.url, "--url", scene.app.url]
    options = ["--lease", "0.5", "--poll", "10ms", "--batch", "7"]
    return subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL, text=True)


def produce_and_die(scene: Scene, first: int, rng: random.Random) -> None:
    """A producer that is killed after some of its orders, within one."""
    command = [sys.executable, "-m", "tests.outbox.producer", scene.url, scene.app.url, str(first), str(PER_ROUND)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout is not None
        for _ in range(rng.randrange(10, PER_ROUND)):
            producer.stdout.readline()
        time.sleep(rng.random() * 0.002)  # somewhere within the next transaction
        producer.kill()


def committed(scene: Scene) -> list[int]:
    return sorted(int(row[0]) for row in scene.sql("SELECT note FROM effect"))


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(90)
def test_every_effect_has_one_job_however_often_producers_and_relays_are_killed(scene: Scene) -> None:
    rng = random.Random(4)
    scene.app.open()
    relays: list[subprocess.Popen[str]] = []
    with relaying(scene, relays):
        for _ in range(ROUNDS):
            done = committed(scene)
            produce_and_die(scene, done[-1] + 1 if done else 0, rng)
            victim = relays.pop(0)
            victim.kill()
            victim.wait()
            relays.append(start_relay(scene))
        deadline = time.monotonic() + 40
        while scene.sql("SELECT count(*) FROM dayjob_outbox") != [(0,)]:
            assert time.monotonic() < deadline, scene.sql("SELECT * FROM dayjob_outbox_relay")
            time.sleep(0.05)

    assert len(committed(scene)) > ROUNDS * 9
    assert committed(scene) == scene.orders()


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_relay_killed_at_each_step_of_its_way_loses_and_doubles_nothing(scene: Scene) -> None:
    scene.app.open()
    for step in ("take", "enqueue", "settle"):
        for moment in ("before", "after"):
            scene.put(1, 2, 3)
            died = subprocess.run(
                [sys.executable, "-m", "tests.outbox.dying", scene.url, scene.app.url, step, moment],
                timeout=20,
                check=False,
            )
            assert died.returncode == -9
    scene.free()

    scene.relay().tick()

    assert scene.orders() == [1, 2, 3] * 6
