"""Places in a room: never more guests than places, and no place is lost to a guest who was interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dayjob.store import open_store
from dayjob.store.room import Room
from dayjob.worker.interrupt import Interrupted, raise_in


def interrupted(waiting: Callable[[], object], meanwhile: Callable[[], object]) -> bool:
    """Interrupt a thread that waits inside *waiting*, do *meanwhile*, and say whether it met the interrupt."""
    met: list[bool] = []

    def wait() -> None:
        try:
            waiting()
        except Interrupted:
            met.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)  # nothing tells that it waits inside a lock
    assert thread.ident is not None
    raise_in(thread.ident, Interrupted)
    meanwhile()
    thread.join(10.0)
    return bool(met)


def test_a_room_takes_as_many_as_it_has_places() -> None:
    room = Room(2)

    assert [room.enter(guest, 0.01) for guest in "abc"] == [True, True, False]
    room.leave("c")
    assert not room.enter("c", 0.01)
    room.leave("a")
    assert room.enter("c", 0.01)


def test_who_waits_enters_when_another_leaves() -> None:
    room = Room(1)
    room.enter("first", 1.0)
    threading.Timer(0.1, room.leave, ("first",)).start()

    assert room.enter("second", 10.0)


def test_a_guest_who_is_interrupted_while_he_waits_takes_no_place_along() -> None:
    room = Room(1)
    room.enter("first", 1.0)

    def stay() -> None:
        try:
            room.enter("second", 10.0)
        finally:
            room.leave("second")

    assert interrupted(stay, lambda: room.leave("first"))
    assert room.enter("third", 1.0)


def test_a_job_that_is_interrupted_while_it_waits_for_a_transaction_leaves_the_next_one_free(tmp_path: Path) -> None:
    with closing(open_store(f"sqlite:///{tmp_path / 'jobs.db'}")) as store:
        store.migrate()
        first = store.begin(limit=60.0)

        assert interrupted(lambda: store.begin(limit=60.0).rollback(), first.rollback)

        began = time.monotonic()
        store.begin().rollback()
        assert time.monotonic() - began < 1.0
