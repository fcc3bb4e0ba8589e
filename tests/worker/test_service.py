"""Start, stop and back-off: written once, stressed here."""

from __future__ import annotations

import random
from threading import Event, Thread

import pytest

from dayjob.errors import BadRow, SchemaMismatch, StoreError, StoreUnavailable
from dayjob.events import Bus
from dayjob.service import Service
from tests.worker.conftest import Witness


class Ticker(Service):
    """Ticks as told."""

    def __init__(self, bus: Bus, delay: float = 0.0, **options: object) -> None:
        super().__init__("ticker", bus, rng=random.Random(1), **options)  # type: ignore[arg-type]
        self.delay = delay
        self.ticks = 0
        self.ticked = Event()
        self.raises: list[BaseException] = []

    def tick(self) -> float:
        self.ticks += 1
        self.ticked.set()
        if self.raises:
            raise self.raises.pop(0)
        return self.delay


@pytest.fixture
def bus() -> Bus:
    return Bus()


def test_it_ticks_at_once_and_again_when_kicked(bus: Bus) -> None:
    service = Ticker(bus, delay=60)
    service.start()
    assert service.ticked.wait(5)

    service.ticked.clear()
    service.kick()

    assert service.ticked.wait(5)
    service.stop()
    assert service.join(5)
    assert not service.running


def test_a_kick_during_a_tick_is_not_lost(bus: Bus) -> None:
    class Kicked(Ticker):
        def tick(self) -> float:
            if self.ticks == 0:
                self.kick()
            else:
                again.set()
            return super().tick()

    again = Event()
    service = Kicked(bus, delay=60)
    service.start()

    assert again.wait(5)
    service.stop()
    service.join(5)


def test_starting_twice_is_refused_and_stopping_is_not(bus: Bus) -> None:
    service = Ticker(bus, delay=60)
    service.stop()
    service.start()
    with pytest.raises(RuntimeError, match="ticker runs already"):
        service.start()
    for _ in range(3):
        service.stop()
    assert service.join(5)
    service.stop()


def test_it_can_be_started_again(bus: Bus) -> None:
    service = Ticker(bus, delay=60)
    for _ in range(20):
        service.start()
        service.stop()
        assert service.join(5)


def test_start_and_stop_from_many_threads_leave_nothing_behind(bus: Bus) -> None:
    for _ in range(20):
        service = Ticker(bus, delay=0.0001)
        service.start()
        threads = [Thread(target=call) for call in (service.stop, service.kick, service.stop, service.kick) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert service.join(5)


def test_an_outage_is_told_once_and_its_end_too(bus: Bus) -> None:
    witness = Witness(bus)
    service = Ticker(bus, delay=7)
    service.raises = [StoreUnavailable("gone"), StoreUnavailable("gone"), StoreUnavailable("gone")]

    delays = [service.attempt() for _ in range(4)]

    assert all(delay is not None and 0 < delay < 1 for delay in delays[:3])
    assert delays[3] == 7
    assert [event.name for event in witness.events] == ["store.unavailable", "store.available"]
    assert witness.events[0].error == "gone"  # type: ignore[attr-defined]


def test_back_off_grows_to_its_bound_and_is_forgotten_after_a_good_tick(bus: Bus) -> None:
    service = Ticker(bus)
    service.longest_backoff = 2.0
    service.raises = [StoreUnavailable("gone")] * 10

    delays = [service.attempt() or 0.0 for _ in range(10)]
    service.attempt()
    service.raises = [StoreUnavailable("gone")]
    first_again = service.attempt()

    assert delays[0] < 0.2
    assert 1.4 < delays[-1] < 2.6
    assert first_again is not None
    assert first_again < 0.2


def test_whatever_a_tick_raises_the_service_goes_on_and_says_so(bus: Bus) -> None:
    witness = Witness(bus)
    service = Ticker(bus, delay=3)
    service.raises = [ZeroDivisionError("oops")]

    assert service.attempt() is not None
    assert service.attempt() == 3
    failed = witness.wait_for("service.failed")
    assert (failed.service, failed.error) == ("ticker", "ZeroDivisionError: oops")
    assert "in tick" in failed.traceback


def test_a_schema_that_is_not_ours_ends_the_service(bus: Bus) -> None:
    fatal: list[BaseException] = []
    service = Ticker(bus, on_fatal=fatal.append)
    service.raises = [SchemaMismatch(9, 1)]
    told: list[tuple[str, str]] = []
    bus.subscribe("service.failed", lambda event: told.append((event.error, event.traceback)))

    assert service.attempt() is None
    assert [type(error) for error in fatal] == [SchemaMismatch]
    assert service.stopping
    assert told == [(f"SchemaMismatch: {fatal[0]}", "")]


def test_a_store_that_is_ill_is_an_outage_and_a_bad_row_is_a_failure(bus: Bus) -> None:
    told: list[str] = []
    bus.subscribe("*", lambda event: told.append(event.name))
    service = Ticker(bus)
    service.raises = [StoreError("read-only"), StoreError("read-only"), BadRow("too big")]

    delays = [service.attempt() for _ in range(4)]

    assert all(delays[:3])
    assert told == ["store.unavailable", "service.failed", "store.available"]
