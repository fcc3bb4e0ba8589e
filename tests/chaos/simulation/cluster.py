"""The processes of the simulation: workers, the processes in which suspects run alone, supervisors, producers."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from dayjob.combiner import Combiner
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.services.duties import tell_gone
from dayjob.store.records import NewRow, WorkerInfo
from dayjob.worker.channel import Hello, Ran
from dayjob.worker.hooks import Hooks
from dayjob.worker.launch import EXIT_AGAIN, Death, describe
from dayjob.worker.worker import Worker
from tests.chaos.simulation import work
from tests.chaos.simulation.limited import rush
from tests.chaos.simulation.line import Line
from tests.chaos.simulation.machine import Flag, Process, Waiters

if TYPE_CHECKING:
    from tests.chaos.simulation.world import World


class Member(Worker):
    """The real worker in a simulated process."""

    def __init__(self, world: World, process: Process, hello: Callable[[str], None], *, solo: bool = False) -> None:
        rng, self.world, self.process = world.rng, world, process
        super().__init__(
            Line(world, process),  # type: ignore[arg-type]
            work.app.registry,
            world.settings,
            world.bus(process),
            Hooks(),
            app=None if world.timetable is None else SimpleNamespace(schedules=world.timetable),
            ref=None if world.childless else world,  # type: ignore[arg-type]
            concurrency=rng.randint(1, 6),
            solo=solo,
            rng=random.Random(rng.getrandbits(64)),
            on_incarnation=hello,
        )

    def _info(self) -> WorkerInfo:
        pid = self.process.pid
        return structs.replace(super()._info(), name=f"p{pid}", host="simulated", pid=pid)

    def _launch(self, role: str, options: dict[str, Any]) -> Any:
        return Child(self.world, self)

    def _go_alone(self, alone: bool) -> bool:
        if alone:
            self.world.note("worker.up", worker=self.id, name=f"p{self.process.pid}", solo=True)
        return super()._go_alone(alone)

    @property
    def running(self) -> int:
        return len(self.executor.running()) if self._begun else 0

    def life(self, goodbye: Callable[[], None] = lambda: None) -> None:
        """What `run` does in a process of its own."""
        if self._work(mortal=True):
            self._last_act()
        goodbye()
        self.process.end(EXIT_AGAIN if self.again else 0)


def enlisted(world: World, process: Process, incarnations: list[str], solo: bool) -> Callable[[str], None]:
    def hello(worker: str) -> None:
        incarnations.append(worker)
        world.note("worker.up", worker=worker, name=f"p{process.pid}", solo=solo)

    return hello


class Child:
    """`launch.Child` with the role `solo`: a process that runs suspects alone, as its parent sees it."""

    def __init__(self, world: World, parent: Member) -> None:
        self.stopping = self.orderly = False
        self._messages: list[Any] = []
        self._news = Waiters()
        self.process = process = world.process("solo")
        world.parents[process] = parent.process
        self.pid = process.pid
        tell = enlisted(world, process, [], solo=True)

        def hello(worker: str) -> None:
            tell(worker)
            self._send(Hello(worker))

        def life() -> None:
            self._worker = Member(world, process, hello, solo=True)
            world.workers[process] = self._worker
            self._worker.life(lambda: self._send(Ran(self._worker.counts.total())))

        process.on_exit.append(self._news.wake)
        parent.process.on_exit.append(lambda: self.stop() if not process.dead else None)
        process.start(life, "main")

    def _send(self, message: Any) -> None:
        self._messages.append(message)
        self._news.wake()

    def stop(self, *, now: bool = False) -> None:
        self.stopping = self.process.stopping = True
        if self.process in (workers := _workers(self)):
            workers[self.process].stop(now=now, why="its parent said so")

    def receive(self, timeout: float) -> Any:
        if not self._messages and not self.process.dead:
            self._news.wait(timeout)
        if self._messages:
            message = self._messages.pop(0)
            self.orderly = isinstance(message, Ran)
            return message
        if self.process.dead:
            return None
        raise TimeoutError

    def reap(self, *, wait: bool = True, close: bool = True) -> Death | None:
        while not self.process.dead:
            if not wait:
                return None
            self._news.wait(None)
        code = self.process.code or 0
        return Death(code, describe(code), None)


def _workers(child: Child) -> dict[Process, Member]:
    worker = getattr(child, "_worker", None)
    return {} if worker is None else {child.process: worker}


class Seat:
    """A supervisor's seat: a worker process, and the next one when it has ended."""

    def __init__(self, world: World, supervisor: Process) -> None:
        self.world, self.supervisor = world, supervisor
        self._store, self._bus = Line(world, supervisor), world.bus(supervisor)

    def life(self) -> None:
        world = self.world
        while not world.ending:
            process, incarnations = world.process("worker"), list[str]()
            over = Flag()
            process.on_exit.append(over.set)
            process.start(partial(self._work, process, incarnations), "main")
            over.wait()
            if not process.unseen:
                self._report(process, incarnations)
            patient = process.code in (0, EXIT_AGAIN)
            world.machine.sleep(0.1 if patient else world.rng.choice((0.1, 2.0, 30.0, 200.0)) * world.rng.random())

    def _work(self, process: Process, incarnations: list[str]) -> None:
        member = Member(self.world, process, enlisted(self.world, process, incarnations, solo=False))
        self.world.workers[process] = member
        member.life()

    def _report(self, process: Process, incarnations: list[str]) -> None:
        """As the supervisor does it."""
        code = process.code or 0
        if code in (0, EXIT_AGAIN):
            return
        death = None if process.told is not None else describe(code)
        for worker in incarnations:
            try:
                gone = self._store._call("leave", worker, death=death)
            except StoreError:
                continue
            if gone is not None and death is not None:
                tell_gone(self._bus, gone, death, None)
                self._store.notify("work")


class Producer:
    """Enqueues as an application would: by the real combiner, which repeats what was not answered."""

    def __init__(self, world: World, process: Process) -> None:
        self.world, self.process = world, process
        self._line = Line(world, process)
        self._combiner = Combiner(lambda: self._line)  # type: ignore[arg-type,return-value]

    def life(self) -> None:
        world, rng = self.world, self.world.rng
        while True:
            world.machine.sleep(rng.expovariate(1 / world.pause))
            if world.producing_over:
                return
            if world.rushes and rng.random() < world.rushes:
                self._enqueue(rush(rng, world.draw, world.kinds))
                continue
            count = rng.choice((1, 1, 1, 2, 3)) if rng.random() < 0.98 else rng.randint(10, 40)
            self._enqueue([world.draw(rng) for _ in range(count)])

    def _enqueue(self, specs: list[work.Spec]) -> None:
        world = self.world
        queue = world.rng.choice(world.queues)
        rows = []
        for spec in specs:
            row = NewRow(world.new_id(), spec.task, queue, b"{}", delay=spec.plan.delay or None, gating=spec.gating)
            row.priority = world.rng.choice((0, 0, 0, 5))
            world.enqueued(row.id, spec)
            rows.append(row)
        try:
            outcomes = self._combiner.send(rows)
        except StoreUnavailable as error:
            for row in rows:
                world.note("enqueue.unknown", id=row.id, error=str(error))
            return
        for row, spec, one in zip(rows, specs, outcomes, strict=True):
            if one.id not in (None, row.id):  # another has the key
                world.note("enqueue.existing", id=row.id, holder=one.id, outcome=one.outcome)
                world.count("held key")
                continue
            world.note("enqueue.acknowledged", id=row.id)
            if spec.cancel_after is not None:
                self.process.start(partial(self._cancel, row.id, spec.cancel_after), "canceller")

    def _cancel(self, id: str, after: float) -> None:
        self.world.machine.sleep(after)
        while True:
            try:
                self._line.cancel(id)
            except StoreUnavailable:
                self.world.machine.sleep(1.0)
            else:
                return
