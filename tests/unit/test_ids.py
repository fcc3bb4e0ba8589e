"""Job ids rise, are UUIDv7, and are never made twice."""

from __future__ import annotations

import os
import time
import uuid
from threading import Thread

import pytest

from dayjob.errors import ConfigError
from dayjob.ids import IdMaker, check_id, new_id, new_ids


def test_an_id_is_a_uuid_of_version_7_with_the_present_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    parsed = uuid.UUID(new_id())
    after = time.time_ns() // 1_000_000

    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= after


def test_ids_rise_one_by_one_and_in_batches() -> None:
    made = [new_id() for _ in range(2_000)] + new_ids(5_000) + [new_id()]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_rise_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = IdMaker()
    first = maker.one()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    second = maker.one()

    assert first < second


def test_threads_never_get_the_same_id() -> None:
    made: list[list[str]] = [[] for _ in range(8)]

    def fill(mine: list[str]) -> None:
        mine.extend(new_id() for _ in range(500))
        mine.extend(new_ids(500))

    threads = [Thread(target=fill, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id for mine in made for id in mine}) == 8_000


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    read, write = os.pipe()
    new_id()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(new_ids(100)).encode())
        os._exit(0)
    mine = set(new_ids(100))
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = set(pipe.read().split())

    assert len(theirs) == 100
    assert not mine & theirs


def test_a_uuid_of_any_form_becomes_canonical_text() -> None:
    canonical = "0b8a6f3e-6a0e-4f1c-9d51-0a4f7f3f9f10"

    assert canonical == check_id(canonical)
    assert canonical == check_id(canonical.upper())
    assert canonical == check_id(f"{{{canonical}}}")
    assert canonical == check_id(uuid.UUID(canonical))


@pytest.mark.parametrize(
    "bad", ["", "order-7", 7, b"x" * 16, None, "0" * 31, "g" * 32, "1" * 10_000, True, "\ud800" * 32]
)
def test_anything_else_is_refused_by_name(bad: object) -> None:
    with pytest.raises(ConfigError, match="is not a UUID"):
        check_id(bad)
