"""A pump on a bench: without threads, its store lossy and its jobs run when the test says so."""

from __future__ import annotations

from typing import Any

from dayjob import App
from dayjob.errors import BadRow, StoreUnavailable
from dayjob.store.records import Beat, Turn, WorkerInfo
from dayjob.worker.executor import Executor
from dayjob.worker.hooks import Hooks
from dayjob.worker.pump import Pump
from dayjob.worker.recorder import Recorder
from dayjob.worker.run import Run, Slots, monotonic
from tests.worker.conftest import Witness

FOREVER = 1 << 62


class Lossy:
    """A store that loses replies when told to: the call is carried out, the answer never comes."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.lose = 0
        self.down = False
        self.poison = ""
        self.ill: Exception | None = None
        self.deaf: Exception | None = None
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def turn(self, worker: str, claim_no: Any = None, settlements: Any = (), wants: Any = ()) -> Turn:
        self.calls.append((claim_no, len(settlements), [want.limit for want in wants]))
        if self.down:
            raise StoreUnavailable("down")
        if self.ill is not None:
            raise self.ill
        if any(one.id == self.poison and one.result == b"null" for one in settlements):
            raise BadRow("this cannot be stored")
        turn: Turn = self._store.turn(worker, claim_no, settlements, wants)
        if self.lose:
            self.lose -= 1
            raise StoreUnavailable("the reply was lost")
        return turn

    def listen(self, topics: Any) -> Any:
        if self.deaf is not None:
            raise self.deaf
        return self._store.listen(topics)


class Bench:
    """A pump whose jobs run when the test says so."""

    def __init__(self, app: App, groups: list[Slots]) -> None:
        self.app = app
        self.store = Lossy(app.store)
        self.witness = Witness(app.bus)
        self.executor = Executor(self.store, app.settings, app.bus, Hooks(), capacity=1)
        self.executor.feed = lambda slots, runs: slots.ready.extend(runs)  # type: ignore[method-assign]
        self.executor.lease_until = FOREVER
        self.names = iter(f"w{number}" for number in range(2, 9))
        self.beat("w1")
        self.pump = Pump(
            self.store,  # type: ignore[arg-type]
            app.registry,
            self.executor,
            Recorder(self.executor, app.bus),
            app.bus,
            groups,
            worker="w1",
            renew=lambda: next(self.names),
            poll=1.0,
            on_suspects=lambda: True,
        )

    def beat(self, worker: str, held: list[int] | None = None) -> Beat:
        return self.app.store.beat(WorkerInfo(worker, worker, "here", 1), held or [])

    def tick(self) -> float:
        return self.pump.tick()

    def ready(self, slots: Slots | None = None) -> list[Run]:
        return list((slots or self.pump.claims.groups[0]).ready)

    def finish(self, count: int, slots: Slots | None = None) -> list[Run]:
        """Run *count* jobs, as the executor would."""
        slots = slots or self.pump.claims.groups[0]
        done = []
        for _ in range(count):
            run = slots.take()
            assert run is not None
            assert self.executor.begin(run, monotonic())
            self.executor.complete(run, None, monotonic())
            slots.give()
            done.append(run)
        return done


def enqueue(app: App, count: int, **options: Any) -> list[Any]:
    noop = app.registry.get("noop")
    return app.enqueue_many([noop.using(**options).job() if options else noop.job() for _ in range(count)])


def states(jobs: list[Any]) -> list[str]:
    return [str(job.refresh().state) for job in jobs]
