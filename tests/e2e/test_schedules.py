"""`dayjob schedules`, by subprocess; and live workers whose leader is killed in the second of a tick."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.conftest import Project

FIELDS = {
    "name", "words", "cron", "tz", "every", "task", "queue", "origin", "edited", "where", "state", "next_run", "next_runs",
    "last_run", "last_job", "overlap", "catch_up", "jitter", "start", "end", "skipped", "missed", "refused", "read_at",
}  # fmt: skip
CLOCK = """
from dayjob import App, JobContext

app = App("sqlite:///clock.db")

@app.every(1, overlap="allow", catch_up="all", name="second")
@app.task(name="note", retention=None)
async def note(ctx: JobContext, word: str = "") -> float:
    import time
    return time.time() - ctx.scheduled_for.timestamp()

@app.cron("0 6 * * *", tz="Europe/Berlin", name="daily")
@app.task(name="daily")
def daily() -> None: ...
"""


@pytest.fixture
def clock(project: Project) -> Project:
    """A project with schedules in its code."""
    (project.folder / "clock.py").write_text(CLOCK)
    project.environ["DAYJOB_APP"] = "clock:app"
    return project


@pytest.mark.timeout(60)
def test_a_schedule_is_set_shown_changed_triggered_and_deleted(project: Project) -> None:
    made = project(
        "schedules",
        "set",
        "morning",
        "greet",
        "--cron",
        "0 6 * * MON-FRI",
        "--tz",
        "Europe/Berlin",
        "--args",
        '{"name": "A"}',
    )
    shown = project("schedules", "show", "morning", "--json").json
    project("schedules", "set", "morning", "--every", "10m", "--overlap", "queue", "--jitter", "5s")
    listed = project("schedules", "list", "--json").json
    paused = project("schedules", "pause", "morning")
    again = project("schedules", "pause", "morning")
    resumed = project("schedules", "resume", "morning", "--json").json
    id = project("schedules", "trigger", "morning").out.strip()
    job = project("jobs", "show", id, "--json").json
    refused = project("schedules", "delete", "morning", status=2)
    deleted = project("schedules", "delete", "morning", "--yes")

    assert "At 06:00 on Monday through Friday (Europe/Berlin)" in made.out
    assert len(made.out.split("next runs")[1].splitlines()) == 5
    assert set(shown) == FIELDS
    assert (shown["cron"], shown["tz"], shown["origin"], len(shown["next_runs"])) == (
        "0 6 * * MON-FRI",
        "Europe/Berlin",
        "run",
        5,
    )
    assert [(one["words"], one["every"], one["overlap"], one["jitter"]) for one in listed] == [
        ("Every 10 minutes", 600.0, "queue", 5.0)
    ]
    assert (paused.out, again.out) == ("paused morning\n", "morning was paused already\n")
    assert resumed == [{"name": "morning", "paused": False, "changed": True}]
    assert (job["task"], job["args"]["name"], job["queue"]) == ("greet", "A", "mail")
    assert "--yes" in refused.err
    assert deleted.out == "deleted morning\n"
    assert "no schedules" in project("schedules", "list").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["set", "x", "greet", "--cron", "*/0 * * * *"], "minute"),
        (["set", "x", "greet", "--cron", "0 6 * * *", "--tz", "../../etc/passwd"], "time zone"),
        (["set", "x", "greet", "--every", "0"], "every=0"),
        (["set", "x", "greet", "--every", "5m", "--cron", "* * * * *"], "exclude"),
        (["set", "x", "gret", "--every", "5m"], "greet"),
        (["set", "x", "greet", "--every", "5m"], "name"),
        (["set", "x", "--every", "5m"], "needs its job"),
        (["set", "x", "greet", "--every", "5m", "--args", "[]"], "JSON object"),
        (["pause", "nobody"], "no schedule is named"),
        (["trigger", "nobody"], "no schedule is named"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_one_line(project: Project, words: list[str], says: str) -> None:
    project("migrate")
    run = project("schedules", *words, status=None)

    assert run.status in (1, 2)
    assert says in run.err
    assert len(run.err.splitlines()) == 1
    assert project("schedules", "list", "--json").json == []


@pytest.mark.timeout(60)
def test_a_worker_stores_what_code_declares_and_ticks_within_a_tenth_of_a_second(clock: Project) -> None:
    worker = clock.start("worker")
    worker.said("worker.started")
    deadline = time.monotonic() + 20
    done: list[dict[str, Any]] = []
    while len(done) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
        done = clock("jobs", "list", "--tag", "schedule:second", "-s", "completed", "--json").json
    late = sorted((at(job["started_at"]) - job["meta"]["dayjob.scheduled_for"] / 1e6) for job in done)
    rows = {row["name"]: row for row in clock("schedules", "list", "--json").json}
    refused = clock("schedules", "delete", "daily", "--yes", status=2)
    worker.signal(signal.SIGTERM)
    worker.wait()

    assert late[len(late) // 2] < 0.1, late
    assert {name: (row["origin"], row["state"]) for name, row in rows.items()} == {
        "daily": ("code", "active"),
        "second": ("code", "active"),
    }
    assert rows["daily"]["words"] == "At 06:00 every day (Europe/Berlin)"
    assert "clock.py:" in refused.err


@pytest.mark.timeout(90)
def test_a_leader_killed_in_the_second_of_a_tick_neither_doubles_nor_loses_one(clock: Project) -> None:
    clock.environ |= {"DAYJOB_LEASE": "2", "DAYJOB_BEAT": "0.3"}
    workers = [clock.start("worker") for _ in range(2)]
    for worker in workers:
        worker.said("worker.started")
    for victim in range(2):
        time.sleep(1.5)
        led = clock("workers", "--json").json
        pid = next(one["pid"] for one in led if one["leader"])
        time.sleep(1.0 - time.time() % 1.0 + (0.0, 0.004)[victim])
        os.kill(pid, signal.SIGKILL)
        if victim == 0:
            workers.append(clock.start("worker"))
            workers[-1].said("worker.started")
    time.sleep(5.0)
    jobs = clock("jobs", "list", "--tag", "schedule:second", "--limit", "1000", "--json").json
    made = sorted(round(job["meta"]["dayjob.scheduled_for"] / 1e6) for job in jobs)

    assert len(made) >= 8
    assert made == [*range(made[0], made[0] + len(made))]


def at(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
