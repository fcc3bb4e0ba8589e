"""One run: calm, then faults from a seed, then calm with producers still at work, then drained and judged.

workers up ─▶ calm ─▶ act: faults ─▶ calm ─▶ … ─▶ producers leave ─▶ drained ─▶ workers leave ─▶ audit, replays, verdict
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from dayjob.clock import SECOND, to_stamp
from dayjob.schedule import Every
from dayjob.states import Outcome
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter, Settlement
from tests.chaos import app as chaos
from tests.chaos.checker import judge
from tests.chaos.contest import contest
from tests.chaos.crew import Crew
from tests.chaos.evidence import UNFINISHED, Conditions
from tests.chaos.faults import TABLES, Fault, Scene, Table, order
from tests.chaos.ledger import Fact
from tests.chaos.places import Place
from tests.chaos.restore import wrong_with
from tests.chaos.verdict import Verdict

WORKERS, PRODUCERS = 4, 2
FIRST = 20
"""Jobs with which the workers show that they are there."""
CALM, HEALING = 5.0, 8.0
"""Seconds of calm before the faults of an act, and after them."""
DRAIN = 15.0
LONG, STEADY = 900.0, 600.0
"""A soak of so many seconds shows whether a process grows: one lives for that long at the least."""
PATIENCE = 60.0
"""Seconds until a run gives up waiting for its jobs: that they are late is for the checker to say."""
REPLAYS = 40


class Report(Struct):
    """What became of a run; JSON with `msgspec.json.encode`.

    Attributes:
        idle: share of the machine's time in which it had nothing to do. faults: how many of each.
        verdict: what the checker says; its figures are the run's.
    """

    engine: str
    seed: int
    seconds: float
    machine: str
    jobs: int
    idle: float
    faults: dict[str, int]
    verdict: Verdict

    def text(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        head = f"{self.engine}, seed {self.seed}: {self.jobs:,} jobs in {self.seconds:.0f} s, {sum(self.faults.values())} faults"
        return f"{head} ({faults})\non {self.machine}, {self.idle:.0%} idle\n{self.verdict.text()}"


def play(
    place: Place,
    seed: int,
    acts: int = 1,
    seconds: float = 37.0,
    *,
    healing: float = HEALING,
    table: Table | None = None,
    spare: bool = False,
    previous: Path | None = None,
    say: Callable[[str], None] = print,
) -> Report:
    """Run *acts* acts at *place*, each with the faults of its *table* within *seconds*.

    Args:
        healing: seconds of calm after them. spare: one worker is never ended.
        previous: the sources of another release, which one worker runs.
    """
    ledger = place.folder / "ledger"
    ledger.mkdir()
    chaos.ledger.folder = ledger
    chaos.app.url = place.judged_at
    begun, before = time.monotonic(), _times()

    def line(text: str) -> None:
        say(f"{time.monotonic() - begun:6.1f} s  {text}")

    try:
        chaos.app.migrate()
        place.prepare()
        known = chaos.app.check().warnings
        with (
            Crew(
                place.folder, place.url, workers=WORKERS, producers=PRODUCERS, seed=seed, spare=spare, previous=previous
            ) as crew,
            _watched(place),
        ):
            _until(lambda: _count("effect") >= FIRST, "the first jobs were not run", crew)
            chaos.app.schedules.set("tick", chaos.tick.job(), Every(1.0), overlap="allow", catch_up="all")
            since = chaos.app.store.now()
            scene = Scene(place, crew, line)
            for act in range(acts):
                time.sleep(CALM)
                _suffer(scene, order(table or TABLES[type(place)], seconds, seed + act))
                line("calm")
                time.sleep(healing)
            crew.dismiss("producer", 60.0)
            line("the producers are gone")
            store = chaos.app.store
            _silence(since)
            _until(lambda: not store.count(Filter(states=UNFINISHED)), "jobs are left", None)
            line("all is done")
            crew.dismiss("worker", 30.0)
        after = _times()
        restored = ([], 0) if scene.backup is None else wrong_with(place, scene.backup)
        _replay(store, chaos.ledger.facts("start"))
        idle = (after[0] - before[0]) / max(after[1] - before[1], 1)
        return _report(place, seed, time.monotonic() - begun, idle, store, known, restored)
    finally:
        chaos.app.close()


@contextmanager
def _watched(place: Place) -> Iterator[None]:
    """While this is open, somebody looks at the store."""
    ending = threading.Event()
    failures: list[Exception] = []

    def look() -> None:
        try:
            while not ending.wait(1.0):
                place.look()
        except Exception as error:
            failures.append(error)

    watcher = threading.Thread(target=look, name="watcher")
    watcher.start()
    try:
        yield
    finally:
        ending.set()
        watcher.join()
    if failures:
        raise failures[0]


def _suffer(scene: Scene, faults: list[tuple[float, Fault]]) -> None:
    """Let *faults* happen at their times, each in a thread of its own, the last when all others are over and did their harm."""
    begun = time.monotonic()
    failures: list[BaseException] = []

    def happen(fault: Fault) -> None:
        try:
            fault.happen(scene)
        except BaseException as error:
            failures.append(error)

    *others, (last_at, last) = faults
    threads = []
    for at, fault in others:
        time.sleep(max(0.0, begun + at - time.monotonic()))  # the fault's time
        threads.append(threading.Thread(target=happen, args=(fault,), name=fault.name))
        threads[-1].start()
    for thread in threads:
        thread.join()
    _until(scene.harmless, "jobs that do harm are left", scene.crew)
    time.sleep(max(0.0, begun + last_at - time.monotonic()))  # the fault's time
    happen(last)
    if failures:
        raise failures[0]


def _silence(since: int) -> None:
    """Stop the clocks, once they have told the time that it is now."""
    until = chaos.app.store.now()
    for name, period in chaos.TICKS.items():
        last = until - round(period * SECOND)
        _until(lambda: _told(name) > last, f"{name} does not tick", None)  # noqa: B023
        chaos.app.schedules.pause(name)
        chaos.ledger.note("ticks.wanted", schedule=name, period=period, since=since, until=until)


def _told(schedule: str) -> int:
    """The stamp of the last tick that made a job."""
    last_run = chaos.app.schedules.get(schedule).last_run
    return 0 if last_run is None else to_stamp(last_run)


def _replay(store: Store, starts: list[Fact]) -> None:
    """Settle again what has long been settled, under leases of the past: those first whose jobs were taken from them."""
    again = Counter(fact["id"] for fact in starts)
    for number, fact in enumerate(sorted(starts, key=lambda fact: -again[fact["id"]])[:REPLAYS]):
        outcome = (Outcome.COMPLETED, Outcome.FAILED, Outcome.RELEASED, Outcome.DEAD)[number % 4]
        before = store.get(fact["id"])
        stale = Settlement(fact["id"], fact["entry"], outcome, 1, 2, result=b'"stale"')
        turn = store.turn(fact["worker"], settlements=[stale])
        refused = turn.refused == [(fact["id"], fact["entry"])] and store.get(fact["id"]) == before
        said = {name: fact[name] for name in ("id", "entry", "worker")}
        chaos.ledger.note("replay.refused" if refused else "replay.accepted", **said, outcome=str(outcome))


def _report(
    place: Place,
    seed: int,
    seconds: float,
    idle: float,
    store: Store,
    known: list[str],
    restored: tuple[list[str], int],
) -> Report:
    wrong, audited = place.audit()
    wrong += restored[0]
    wrong += [warning for warning in store.check().warnings if warning not in known]
    facts = chaos.ledger.facts()
    conditions = Conditions.of(
        chaos.SETTINGS,
        drain=DRAIN,
        offset=store.now() / SECOND - time.monotonic(),
        tolerance=0.05,
        crashes=tuple(place.crashes),
        forgets_claims=place.forgets_claims,
        forgets=place.forgets,
        steady=STEADY if seconds >= LONG else 0.0,
        audit=tuple(wrong),
        audited=audited + restored[1],
    )
    verdict = judge(facts, store, conditions)
    with closing(open_store(place.judged_at)) as unwitnessed:  # its jobs are nobody's in the ledger
        verdict = Verdict((*verdict.findings, contest(unwitnessed)))
    return Report(
        place.name,
        seed,
        seconds,
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        sum(fact["fact"] == "enqueue.tried" for fact in facts),
        idle,
        dict(Counter(fact["name"] for fact in facts if fact["fact"] == "fault")),
        verdict,
    )


def _times() -> tuple[int, int]:
    """What all processors have spent so far: idle or for those who let all others go first, in all."""
    spent = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return spent[1] + spent[3], sum(spent)


def _count(name: str) -> int:
    return len(chaos.ledger.facts(name))


def _until(met: Callable[[], object], otherwise: str, crew: Crew | None, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            if crew is None:
                return
            raise AssertionError(f"{otherwise} within {seconds:g} s; the processes say:\n{crew.log()}")
        time.sleep(0.1)


def folder_of(engine: str, seed: int, report: Path) -> Path:
    """A new folder for a run."""
    folder = report / f"{engine}-{seed}"
    folder.mkdir(parents=True)
    return folder
