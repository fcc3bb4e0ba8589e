"""The end of the demo: collect what the store says, compare, and say it in ten lines."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dayjob.cli.demo.verify import BINARY, EXCUSES, UNREADABLE, Outcome, Verdict, compare, plain, read_effects, stamp
from dayjob.cli.output import jobs

if TYPE_CHECKING:
    from collections import Counter

    from dayjob import App, Job
    from dayjob.cli.demo.display import Screen
    from dayjob.cli.demo.reading import Reading
    from dayjob.cli.demo.scene import Scene
    from dayjob.cli.demo.show import Show
    from dayjob.cli.demo.tasks import Totals


class Rescue(Struct):
    """What became of the killed worker's jobs. Times are seconds after the kill."""

    jobs: int
    taken: float | None
    done: float | None
    faults: list[str]


def close(show: Show, scene: Scene, total: Job[Any]) -> int:
    """Compare and report; returns the exit status."""
    from dayjob.cli.demo.tasks import ATTEMPTS, name_of

    screen, app = show.screen, show.app
    assert app is not None
    ended = total.refresh()
    outcomes = list(_outcomes(app))
    effects = read_effects(show.scratch)
    _explain(app, outcomes, effects)
    rescue = _rescue(app, show.victims, show.killed_at)

    if screen.live:
        screen.show([f"  comparing with one plain process, {len(show.paths):,} files ..."], "")
    started = time.perf_counter()
    expected = {name_of(path): plain(path) for path in show.paths}
    took = time.perf_counter() - started
    screen.clear()
    changed = frozenset(name_of(path) for path, seen in show.stamps.items() if stamp(path) != seen)
    verdict = compare(expected, outcomes, effects, ATTEMPTS, changed)
    verdict.faults += rescue.faults
    if str(ended.state) != "completed":
        verdict.faults.append(f"the last job is {ended.state}: {ended.error}")
        totals = None
    else:
        totals = total.result(timeout=0)
        verdict.faults += _sums(totals, expected, outcomes)
    _print(show, scene, totals, expected, verdict, rescue, took)
    return 1 if verdict.faults else 0


def _outcomes(app: App) -> Any:
    after = None
    while True:
        page = app.jobs.find(queue="files", limit=1000, after=after)
        for job in page:
            done = str(job.state) == "completed"
            yield Outcome(
                job.id,
                job.args["name"],
                str(job.state),
                job.reason,
                job.attempt,
                job.result(timeout=0) if done else None,
            )
        after = page.after
        if after is None:
            return


def _explain(app: App, outcomes: list[Outcome], effects: Counter[str]) -> None:
    """Look up the attempts of those jobs whose effects need an explanation."""
    for one in outcomes:
        if effects[one.id] > (one.state == "completed"):
            one.excuses = sum(attempt.outcome in EXCUSES for attempt in app.jobs.get(one.id).attempts)


def _rescue(app: App, victims: list[str], killed_at: datetime | None) -> Rescue:
    """When the killed worker's jobs were taken from it, and when the last of them was done."""
    taken: list[datetime] = []
    done: list[datetime] = []
    faults = []
    for id in victims:
        job = app.jobs.get(id)
        losses = [one.finished_at for one in job.attempts if one.outcome in EXCUSES]
        if not losses:
            faults.append(f"job {id}: its worker was killed, but no loss is recorded")
        taken += losses[:1]
        if job.finished_at is not None:
            done.append(job.finished_at)

    def after(moments: list[datetime]) -> float | None:
        return (max(moments) - killed_at).total_seconds() if moments and killed_at else None

    return Rescue(len(victims), after(taken), after(done), faults)


def _sums(totals: Totals, expected: dict[str, Reading | str], outcomes: list[Outcome]) -> list[str]:
    """The last job's sums against the results that it had to add up."""
    readings = [one.reading for one in outcomes if one.reading is not None]
    wanted = {
        "files": len(readings),
        "size": sum(one.size for one in readings),
        "lines": sum(one.lines for one in readings),
        "words": sum(one.words for one in readings),
    }
    return [
        f"the last job adds up {name} to {getattr(totals, name):,}, plain addition to {value:,}"
        for name, value in wanted.items()
        if getattr(totals, name) != value
    ]


def _print(
    show: Show,
    scene: Scene,
    totals: Totals | None,
    expected: dict[str, Reading | str],
    verdict: Verdict,
    rescue: Rescue,
    took: float,
) -> None:
    screen = show.screen
    paint, say = screen.paint, screen.say
    top = f"{show.top}/"

    def row(title: str, *lines: str) -> None:
        say(f"  {paint(f'{title:<10}', 'bold')} {lines[0]}")
        for line in lines[1:]:
            say(f"  {'':<10} {paint(line, 'dim')}")

    if totals is not None:
        row(
            "read",
            f"{totals.files:,} files, {totals.size / 1e6:,.1f} MB, {totals.lines:,} lines, {totals.words:,} words",
        )
        ranked = sorted(totals.encodings.items(), key=lambda one: -one[1])
        row("encodings", ", ".join(f"{name} {count:,}" for name, count in ranked[:7]))
        slowest = [f"{name.removeprefix(top)} {seconds * 1000:,.0f} ms" for name, seconds in totals.slowest[:3]]
        row("slowest", ", ".join(slowest))
    binary = sum(one == BINARY for one in expected.values())
    unreadable = sum(one == UNREADABLE for one in expected.values())
    row("dead", f"{binary:,} binary (at once), {unreadable:,} unreadable (after 3 attempts)")
    row("rate", _rate(scene, took))
    row("rescued", *_rescued(rescue, verdict))
    row("compared", _compared(verdict, took))
    say()
    _judge(screen, verdict)


def _judge(screen: Screen, verdict: Verdict) -> None:
    """The last word."""
    paint, say = screen.paint, screen.say
    for fault in verdict.faults[:20]:
        say(f"  {paint('✖', 'red')} {fault}")
    if len(verdict.faults) > 20:
        say(f"  {paint('✖', 'red')} and {len(verdict.faults) - 20:,} more")
    if verdict.faults:
        say(f"  {paint('✖ something is wrong: please report it', 'red', 'bold')}")
    else:
        say(f"  {paint('✔ every job ended as it should', 'green', 'bold')}, and kill -9 lost nothing")
    say()


def _rate(scene: Scene, took: float) -> str:
    peak = max(scene.rates, default=0.0)
    return f"{scene.total:,} jobs in {scene.elapsed:.1f} s, the wait for the lease included; {peak:,.0f} jobs/s at best"


def _rescued(rescue: Rescue, verdict: Verdict) -> list[str]:
    if not rescue.jobs or rescue.taken is None or rescue.done is None:
        return ["nothing: the killed worker held no job at that moment"]
    lines = [
        f"{jobs(rescue.jobs)} of the killed worker: taken from it {rescue.taken:.1f} s after the kill, "
        f"the last done after {rescue.done:.1f} s"
    ]
    if verdict.doubled:
        lines.append(f"{verdict.doubled:,} had been done when it died, before it could say so: they were done twice")
    return lines


def _compared(verdict: Verdict, took: float) -> str:
    words = f"{verdict.checked:,} jobs and {verdict.effects:,} effects with one plain process ({took:.1f} s)"
    if verdict.changed:
        words += f"; left out {len(verdict.changed):,} files that were changed meanwhile"
    return f"{words}: {'no difference' if not verdict.faults else f'{len(verdict.faults):,} faults'}"
