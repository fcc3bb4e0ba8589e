"""Settlements out, claims in: the one thread of a worker that exchanges batches with the store.

    ┌─▶ collect what ended ─▶ ripe? ─▶ turn(settle + claim) ─▶ feed the executor ─┐
    └──────────────── sleep: an end, a signal, the next due time, a second ◀──────┘

A turn costs the same for one job as for a hundred, so ends wait a moment for company while more are about to come;
jobs are claimed ahead, but only what starts within about 20 ms. A turn whose reply is lost is repeated as it was, under
its number, until the store has answered: nothing is claimed or settled twice by that (P9).

When told to stop it runs the same circle without claims: see `winding.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING

from msgspec import Struct

from dayjob.clock import SECOND
from dayjob.errors import SchemaMismatch
from dayjob.events import Bus, JobStarted, WorkerLost
from dayjob.service import Service
from dayjob.store.records import Beat, Settlement, Turn, Want
from dayjob.worker import outcomes
from dayjob.worker.breakers import Breakers
from dayjob.worker.claims import Claims
from dayjob.worker.ears import Ears
from dayjob.worker.run import CANCEL, LOST, Batch, Run, Slots, monotonic
from dayjob.worker.tallies import Tallies
from dayjob.worker.teller import Teller
from dayjob.worker.winding import Winding

if TYPE_CHECKING:
    from dayjob.registry import Registry
    from dayjob.store.contract import Store
    from dayjob.worker.executor import Executor
    from dayjob.worker.recorder import Recorder

COMPANY = 100
LINGER = 3_000
"""An end waits up to 3 ms for others, but not once 100 have come together."""
NAPS = (50_000, 250_000)
"""Falling asleep: the first looks that find nothing are repeated so soon. Who stored a job a moment before may not have seen
that somebody sleeps here, and has sent no signal."""


class Call(Struct):
    """A turn as it is sent, kept until it is answered."""

    no: int | None
    runs: list[Run]
    settlements: list[Settlement]
    wants: list[Want]
    asked: list[Slots]
    tries: int = 0


class Pump(Service):
    """Exchanges batches with the store.

    Args:
        groups: the slots, each with its queues.
        worker: the first incarnation's id; `renew` makes the next, after a loss.
        poll: seconds between two looks where no signal comes.
        solo: claims suspects only, one at a time, and ends when there are none.
        burst: ends when there is nothing left to claim.
        on_suspects: starts a process for suspects, and says whether it does; None: they run here, alone.
        elsewhere: says whether jobs run in a process for suspects: a burst waits for it.
        on_alone: to tell the store that this worker begins or ends to run suspects itself; says whether the store knows.
        on_dead: called with each run that died and was accepted.
        on_control: called when someone's cancel or pause is to be learned. on_full: after *max_jobs*.
        on_feed: called when jobs went to the executor. on_finished: called once it has ended.
    Attributes:
        tallies: what was settled. finished: set when it has ended.
    """

    longest_backoff = 2.0

    def __init__(
        self,
        store: Store,
        registry: Registry,
        executor: Executor,
        recorder: Recorder,
        bus: Bus,
        groups: Sequence[Slots],
        *,
        worker: str,
        renew: Callable[[], str],
        poll: float,
        solo: bool = False,
        burst: bool = False,
        max_jobs: int | None = None,
        on_suspects: Callable[[], bool] | None = None,
        elsewhere: Callable[[], bool] = lambda: False,
        on_alone: Callable[[bool], bool] | None = None,
        on_dead: Callable[[Run], None] | None = None,
        on_control: Callable[[int], None] | None = None,
        on_full: Callable[[], None] | None = None,
        on_feed: Callable[[], None] | None = None,
        on_finished: Callable[[], None] | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        super().__init__("pump", bus, on_fatal=on_fatal)
        self.store, self.executor, self.recorder = store, executor, recorder
        self.claims = Claims(registry, executor, groups)
        self.worker, self._renew = worker, renew
        self._poll = int(poll * SECOND)
        self.solo, self.burst = solo, burst
        self._max_jobs = max_jobs
        self._on_suspects, self._on_alone = on_suspects, on_alone
        self._elsewhere = elsewhere
        self._on_control, self._on_full = on_control, on_full
        self._on_feed, self._on_finished = on_feed, on_finished
        self.batches: dict[int, Batch] = {}
        self.tallies = Tallies()
        self.finished = Event()
        self.winding: Winding | None = None
        self.alone = self._known_alone = False
        self.done: list[Run] = []
        self._done_since = 0
        self._pending: Call | None = None
        self._single: deque[Call] = deque()
        self._claims = self.sent = 0
        self._look_at = self._naps = 0
        self._control = -1
        self._news: deque[Beat] = deque()
        self._paused: frozenset[str] = frozenset()
        self._ears = Ears(store, bus)
        self._breakers = Breakers(store, registry, bus)
        self._teller = Teller(
            store,
            executor,
            bus,
            self.tallies,
            on_dead=on_dead,
            on_control=on_control,
            on_pause=self._breakers.pauses.extend,
        )
        executor.tray.wake = self.kick

    # -- sleeping ------------------------------------------------------------------------------------------------

    def wait(self, delay: float) -> None:
        if delay <= 0:
            return
        tray = self.executor.tray
        tray.enough = COMPANY if self.done else 1
        if len(tray.items) >= tray.enough or self._news:  # came between the tick and here
            tray.enough = 0
            return
        for topic, data in self._ears.wait(delay):
            if topic == "work" and (not data or self.claims.serves(data.decode("utf-8", "replace"))):
                self._look_at = 0
            elif topic == "control" and self._on_control is not None:
                self._on_control(-1)
        tray.enough = 0

    def kick(self) -> None:
        self._ears.wake()

    def look_now(self) -> None:
        """There may be something to claim. From any thread."""
        self._look_at = 0
        self.kick()

    # -- the circle ------------------------------------------------------------------------------------------------

    def tick(self) -> float:
        self._ears.open()
        now = monotonic()
        self._hear(now)
        self.collect(now)
        if self.winding is not None:
            self.winding.advance(self, now)
        else:
            self.claims.release_stale(now)
            self.claims.packing.seal(now)
            self.collect(now)
        call = self._pending or (self._single.popleft() if self._single else self._compose(now))
        if call is not None:
            self._exchange(call)
            self._breakers.pause()
            now = monotonic()
        if self.winding is not None and self.winding.over(self):
            self._finish()
        return self._delay(now)

    def _exchange(self, call: Call) -> None:
        if self._pending is None:
            self._pending = call
            self.sent = call.no or self.sent
            self.done = []
        try:
            self.recorder.finish(call.runs)
            self._breakers.tell(call.runs, call.settlements)
            call.tries += 1
            began = monotonic()
            turn = self.store.turn(self.worker, call.no, call.settlements, call.wants)
        except SchemaMismatch:
            self.close()
            raise  # it ends the service
        except Exception as error:
            if outcomes.unstorable(error):
                self._isolate(call, error)
            elif self.winding is not None and self.winding.too_late(monotonic()):
                self._pending = None  # the leases run out by themselves
            raise  # else it is the store that is ill, and no run: the call is repeated as it is
        ended = monotonic()
        batch = None
        if turn.claimed:  # listed as a batch before it ceases to be listed as pending: a beat may come in between
            assert call.no is not None
            batch = self.batches[call.no] = Batch(call.no, self.worker, ended)
        self._pending = None
        self.executor.offset = turn.now - ended
        self.claims.turn_takes += (min((ended - began) / SECOND, 0.2) - self.claims.turn_takes) / 4
        self._strike(call.runs)
        try:
            self._settled(call, turn)
        finally:  # whatever telling of ends meets, what was claimed is to run
            self._claimed(call, turn, batch, ended)
        if turn.control != self._control:
            self._control = turn.control
            self._breakers.changed()
            if self._on_control is not None:
                self._on_control(turn.control)

    def settle(self, runs: list[Run], settlements: list[Settlement]) -> None:
        """Settle *runs* out of turn, when the pump's thread has ended."""
        self._exchange(Call(None, runs, settlements, [], []))

    def _strike(self, runs: list[Run]) -> None:
        """The store knows of the ends of *runs*: they are held no more. Before anything that may raise."""
        for run in runs:
            batch = run.batch
            batch.runs.pop(run.job.entry, None)
            if not batch.runs:
                self._forget_empty(batch)
            run.slots.held -= 1
        if self.claims.packing.busy:
            self.claims.packing.strike(runs)

    def _isolate(self, call: Call, error: Exception) -> None:
        """One of a call's settlements cannot be stored: each is sent alone.

        One that fails alone, with no claim beside it, ends its job as dead, with the store's words instead of its own.
        """
        self._pending = None
        alone = len(call.runs) == 1 and not call.wants
        for run, settlement in zip(call.runs, call.settlements, strict=True):
            if alone and settlement.reason == outcomes.UNSETTLED:
                self._drop(run)
            elif alone:
                limit = self.executor.settings.max_error
                dead = outcomes.settle_unsettled(run, settlement, error, limit)
                self._single.append(Call(None, [run], [dead], [], [], call.tries))
            else:
                self._single.append(Call(None, [run], [settlement], [], [], call.tries))

    def _delay(self, now: int) -> float:
        if self.finished.is_set() or self._single:
            return 0.0
        soon = min(self._look_at, self.claims.packing.seal_at)
        until = soon if self.winding is None else self.winding.next_at
        if self.done:
            until = min(until, self._done_since + LINGER)
        return max(0, until - now) / SECOND

    def _finish(self) -> None:
        if self.finished.is_set():
            return
        self.finished.set()
        self._stopping = True
        self.close()
        if self._on_finished is not None:
            self._on_finished()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._ears.close()

    # -- what ended ------------------------------------------------------------------------------------------------

    def collect(self, now: int) -> None:
        """Take what the executor has put out; what belongs to an earlier incarnation is dropped."""
        items, done = self.executor.tray.items, self.done
        if items and not done:
            self._done_since = now
        known: list[Run] = []
        for _ in range(len(items)):
            run = items.popleft()
            if run.replaced:
                run.slots.hung.discard(run)
            if run.completion is not None and run.completion.committed:
                run.settlement = run.completion.settlement
                known.append(run)
            elif run.settlement is None or run.batch.worker != self.worker:
                self._drop(run)
            elif run.job.entry in run.batch.runs:
                run.settlement.claim_no = run.batch.no
                done.append(run)
        if known:
            self._completed_already(known)

    def _drop(self, run: Run) -> None:
        """Nothing may be written for *run*: its lease is lost."""
        self._strike([run])
        self.executor.refused(run, "settle")

    def _forget_empty(self, batch: Batch) -> None:
        if not batch.runs and self.batches.get(batch.no) is batch:
            del self.batches[batch.no]

    def _settled(self, call: Call, turn: Turn) -> None:
        """The store has answered: count, tell."""
        if call.runs:
            self._teller.tell(call.runs, call.settlements, turn, repeated=call.tries > 1)
            self.claims.observe(call.runs, monotonic())
            self._look_whether_full()

    def _completed_already(self, runs: list[Run]) -> None:
        """*runs* have completed in transactions: the store knows of their ends, and is not told."""
        self._strike(runs)
        self._breakers.completed(runs)
        self._teller.tell(runs, [run.settlement for run in runs if run.settlement is not None])
        self.claims.observe(runs, monotonic())
        self._look_whether_full()
        self._look_at = 0  # there is room, and no turn to settle them that would ask for more

    def _look_whether_full(self) -> None:
        if self._max_jobs is not None and self.tallies.counts.total() >= self._max_jobs and self._on_full is not None:
            self._on_full()

    # -- claiming --------------------------------------------------------------------------------------------------

    def _compose(self, now: int) -> Call | None:
        """The next turn, None when it is not time for one."""
        if not (self._ripe(now) or now >= self._look_at):
            return None
        runs = self.done
        wants, asked = ([], []) if self.winding is not None else self._wants(now)
        if self.winding is not None and not runs:
            return None
        no = None
        if wants:
            self._claims += 1
            no = self._claims
        return Call(no, runs, [run.settlement for run in runs if run.settlement is not None], wants, asked)

    def _ripe(self, now: int) -> bool:
        """True when the ends at hand should not wait for more."""
        if not self.done:
            return False
        if len(self.done) >= COMPANY or now - self._done_since >= LINGER or self.winding is not None:
            return True
        return self.claims.coming() * LINGER < SECOND

    def _wants(self, now: int) -> tuple[list[Want], list[Slots]]:
        if now >= self.executor.lease_until:
            return [], []
        if self.solo or self.alone or self._known_alone:
            if self.claims.held_jobs() - len(self.done) or not self._secluded():
                return [], []
            if self.solo or self.alone:
                return self.claims.suspect_want()
        wants, asked = self.claims.wants(self.done)
        return (wants, asked) if wants or self.done else self.claims.nothing()

    def _claimed(self, call: Call, turn: Turn, batch: Batch | None, now: int) -> None:
        """Make runs of what came, and decide when to look again."""
        got: dict[Slots, int] = {}
        if batch is not None:
            got = self.claims.take(turn.claimed, batch, now)
            if self._on_feed is not None:
                self._on_feed()
        elif call.wants:
            self.claims.packing.learn(())
            if self.burst:  # nobody will join what was gathered
                self.claims.packing.seal(now, all=True)
        self._look_again(call, turn, got, now)
        suspects = turn.suspects and not self.solo and self._suspects_wait(call, turn)
        if self.alone and call.wants and not suspects and not self.claims.held_jobs():
            self._go_alone(False)
        elif call.runs and self.alone != self._known_alone and not self.claims.held_jobs():
            self._look_at = now  # those that it had to wait for have gone
        busy = self.claims.held_jobs() or self.claims.packing.running or self.executor.tray.items
        idle = bool(call.wants) and not turn.claimed and not busy
        if idle and (self.solo or (self.burst and not suspects and not self.alone and not self._elsewhere())):
            self._finish()

    def _look_again(self, call: Call, turn: Turn, got: dict[Slots, int], now: int) -> None:
        self._naps = 0 if turn.claimed else self._naps + 1
        self._look_at = now + (NAPS[self._naps - 1] if 0 < self._naps <= len(NAPS) else self._poll)
        if any(got.get(slots, 0) >= want.limit for slots, want in zip(call.asked, call.wants, strict=True)):
            if any(map(self.claims.has_room, call.asked)):
                self._look_at = now  # there is more, and room for it
        elif turn.next_due is not None:
            self._look_at = min(self._look_at, max(turn.next_due - self.executor.offset, now + 500))

    def _suspects_wait(self, call: Call, turn: Turn) -> bool:
        """Suspects wait in the store; True when somebody will run them, False when nobody can (they are paused)."""
        if self._on_suspects is not None:
            return self._on_suspects()
        if not self.alone:
            self._go_alone(True)
            return True
        return bool(turn.claimed) or not call.wants

    def _go_alone(self, alone: bool) -> None:
        self.alone = alone
        self._look_at = 0

    def _secluded(self) -> bool:
        """True when the store knows whether this worker runs suspects alone. Told only while it holds nothing: a crash
        of one that runs alone counts for every job that it holds."""
        due = self.alone != self._known_alone and not self.claims.held_jobs()
        if due and (self._on_alone is None or self._on_alone(self.alone)):
            self._known_alone = self.alone
        return self.alone == self._known_alone

    # -- letting go --------------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> bool:
        """True when ends of jobs have not reached the store."""
        return bool(self.done or self._pending or self._single or self.executor.tray.items)

    def release_ready(self, now: int, why: str, which: Callable[[Run], bool] | None = None) -> None:
        """Put back what has not started (and of that only *which*, if given)."""
        self.claims.release(now, why, which)
        self.collect(now)

    # -- what the beat brings ----------------------------------------------------------------------------------------

    def held(self) -> list[int]:
        """See `leases.Holder`. The claim under way is listed: its reply may be on its way.

        Called in the beat's thread: what is pending is read first, as it becomes a batch before it ceases to be that.
        """
        pending = self._pending
        numbers = list(self.batches)
        if pending is not None and pending.no is not None:
            numbers.append(pending.no)
        return numbers

    def heard(self, beat: Beat, worker: str) -> None:
        """See `leases.Holder`; called in the beat's thread."""
        if worker != self.worker:
            return
        for id, entry in beat.cancelled:
            for batch in list(self.batches.values()):
                run = batch.runs.get(entry)
                if run is not None and run.job.id == id and run.stopping is None:
                    self.executor.tell(run, CANCEL)
        if beat.lost or beat.paused != self._paused:
            self._news.append(beat)
            self.kick()

    def _hear(self, now: int) -> None:
        while self._news:
            beat = self._news.popleft()
            if beat.lost:
                self._begin_again()
                continue
            resumed = self._paused - beat.paused
            self._paused = beat.paused
            if resumed:
                self._look_at = 0
            self.release_ready(now, "paused", lambda run: run.job.queue in self._paused)
        self.executor.tells_started = self.bus.wants(JobStarted.name)

    def _begin_again(self) -> None:
        """This worker was given up: others have its jobs. Stop them, and come back under a new name."""
        running = 0
        ready = self.claims.take_away()
        for run in ready:
            self.executor.refused(run, "start")
        self._strike(ready)
        for batch in self.batches.values():
            for run in list(batch.runs.values()):
                if not run.over and run.settlement is None:
                    running += 1
                    self.executor.interrupt(run, LOST)
        for run in self.done:
            self._drop(run)
        for run in self._pending.runs if self._pending is not None else ():
            self._drop(run)
        for call in self._single:
            for run in call.runs:
                self._drop(run)
        self._single.clear()
        self.done, self._pending = [], None
        self.bus.emit(WorkerLost(worker=self.worker, running=running))
        self.batches = {}
        self._claims, self.sent, self.worker = 0, 0, self._renew()
        self._look_at = 0
