"""How jobs, queues and workers look: as JSON documents with stable names, and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dayjob.cli.output import Column, age, jobs, number, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dayjob.codec.envelope import Failure
    from dayjob.job import Job
    from dayjob.limits import BreakerStats, LimitStats
    from dayjob.queues import QueueStats
    from dayjob.store.gating import Gating

COUNTED = 10_000
"""Waiting jobs are counted up to here."""

JOB_FIELDS = (
    "id", "task", "queue", "state", "reason", "priority", "attempt", "max_attempts", "crashes", "run_at", "created_at",
    "started_at", "finished_at", "worker", "tags", "meta", "flow_id",
)  # fmt: skip
ATTEMPT_FIELDS = (
    "number",
    "round",
    "outcome",
    "started_at",
    "finished_at",
    "worker",
    "error_type",
    "message",
    "traceback",
    "reason",
)


def job_document(job: Job[Any], *, whole: bool = False) -> dict[str, Any]:
    """A job by the names that `Job` has; *whole* adds its attempts and what it logged."""
    document: dict[str, Any] = {name: getattr(job, name) for name in JOB_FIELDS if name != "meta"}
    document["meta"], document["args"] = _readable(job, "meta"), arguments(job)
    progress, error = job.progress, job.error
    document["progress"] = progress and {"done": progress.done, "total": progress.total, "note": progress.note}
    document["error"] = error and {"type": error.type, "message": error.message, "traceback": error.traceback}
    if whole:
        document["attempts"] = [{name: getattr(one, name) for name in ATTEMPT_FIELDS} for one in job.attempts]
        document["logs"] = [{"at": line.at, "level": line.level, "message": line.message} for line in job.logs()]
    return document


def arguments(job: Job[Any]) -> Any:
    """The job's arguments; None where they cannot be read (a changed signature must not hide the job)."""
    return _readable(job, "args")


def _readable(job: Job[Any], name: str) -> Any:
    """What producers wrote, in SQL perhaps; None where it is no JSON, or nested for ever: it must not hide its neighbours."""
    try:
        return getattr(job, name)
    except (ValueError, RecursionError):
        return None


def headline(error: Failure | None) -> str:
    """An error in one line."""
    if error is None:
        return "-"
    first = error.message.strip().splitlines()
    return f"{error.type}: {first[0]}" if first else error.type


def note(job: Job[Any]) -> str:
    """What a reader of the list most wants to know of this job beyond its state."""
    state = str(job.state)
    if state == "scheduled":
        return f"due {age(job.run_at)}"
    if state == "blocked" and job.gating is not None:
        return f"waits for {', '.join(f'{gate.kind} {gate.key}' for gate in job.gating.gates)}"
    if state == "running":
        return progress_text(job) or (f"since {age(job.started_at)}" if job.started_at else "-")
    if state in ("dead", "cancelled"):
        return f"{job.reason or state}: {headline(job.error)}" if job.error else job.reason or "-"
    if state == "completed" and job.started_at and job.finished_at:
        return f"took {span((job.finished_at - job.started_at).total_seconds())}"
    return "-"


def progress_text(job: Job[Any]) -> str:
    """How far it is: `40/100 pages`; empty when it does not say."""
    progress = job.progress
    if progress is None:
        return ""
    total = f"/{progress.total:g}" if progress.total is not None else ""
    return f"{progress.done:g}{total} {progress.note}".strip()


def limit_text(row: LimitStats) -> str:
    """What a limit lets pass: `10 per 1.0 s`, `3`; of a breaker it says nothing."""
    if row.kind == "breaker":
        return "-"
    return f"{number(row.limit)} per {span(row.per)}" if row.kind == "rate" else number(row.limit)


def waiting_text(row: LimitStats) -> str:
    """Jobs that wait, which are counted so far and no farther."""
    return f"{number(row.waiting)}{'+' if row.waiting >= COUNTED else ''}"


def breaker_text(row: BreakerStats) -> str:
    """When an open breaker lets a job through to try."""
    if row.state == "open":
        return "when closed by hand" if row.opens is None else f"in {span(row.opens)}"
    return "now" if row.state == "probing" else "-"


def hurdles(gating: Gating | None, limits: Sequence[LimitStats]) -> list[dict[str, Any]]:
    """What a job has to pass, limit by limit, as *limits* tell of it; of a limit that is not among them nothing is taken."""
    known = {(row.kind, row.key): row for row in limits}
    found = []
    for gate in () if gating is None else gating.gates:
        row = known.get((gate.kind, gate.key))
        found.append(
            {
                "kind": gate.kind,
                "key": gate.key,
                "limit": gate.limit if row is None else row.limit,
                "per": gate.per if row is None else row.per,
                "taken": 0 if row is None else row.taken,
                "waiting": 0 if row is None else row.waiting,
                "opens": None if row is None else row.opens,
            }
        )
    return found


def hurdle_text(one: dict[str, Any]) -> str:
    """A limit of a job in a line: `concurrency tenant:7: 3 of 3 taken, 12 jobs wait`."""
    kind, key, opens = one["kind"], one["key"], one["opens"]
    words = {"order": "strict lane", "breaker": "breaker"}.get(kind, kind)
    taken = "" if kind in ("order", "breaker") else f": {number(one['taken'])} of {number(one['limit'])} taken"
    per = f" in {span(one['per'])}" if kind == "rate" else ""
    soon = "" if opens is None else f", opens in {span(opens)}"
    wait = f", {jobs(one['waiting'])} wait{'s' if one['waiting'] == 1 else ''}" if one["waiting"] else ""
    return f"{words} {key}{taken}{per}{soon}{wait}"


JOB_COLUMNS = (
    Column("id", lambda job: job.id),
    Column("task", lambda job: job.task),
    Column("queue", lambda job: job.queue, spare=1),
    Column("state", lambda job: str(job.state)),
    Column("pri", lambda job: str(job.priority), right=True, spare=4),
    Column("try", lambda job: str(job.attempt), right=True, spare=3),
    Column("created", lambda job: age(job.created_at), spare=2),
    Column("note", note, wide=True),
)

DEAD_COLUMNS = (
    Column("id", lambda job: job.id),
    Column("task", lambda job: job.task),
    Column("queue", lambda job: job.queue, spare=1),
    Column("reason", lambda job: job.reason or "-", spare=1),
    Column("try", lambda job: str(job.attempt), right=True, spare=3),
    Column("died", lambda job: age(job.finished_at), spare=2),
    Column("error", lambda job: headline(job.error), wide=True),
)


QUEUE_COLUMNS = (
    Column("queue", lambda row: row.name),
    Column("is", lambda row: "paused" if row.paused else "closed" if row.closed else "active"),
    Column("available", lambda row: number(row.counts["available"]), right=True),
    Column("blocked", lambda row: number(row.counts["blocked"]), right=True),
    Column("running", lambda row: number(row.counts["running"]), right=True),
    Column("scheduled", lambda row: number(row.counts["scheduled"]), right=True, spare=1),
    Column("completed", lambda row: number(row.counts["completed"]), right=True),
    Column("dead", lambda row: number(row.counts["dead"]), right=True),
    Column("oldest waits", lambda row: span(row.oldest), right=True),
    Column("done/s", lambda row: f"{row.rates.get('completed', 0.0):,.1f}", right=True, spare=2),
    Column("limits", lambda row: limits_text(row), spare=3),  # noqa: PLW0108  # defined below
)


def limits_text(row: QueueStats | None) -> str:
    """What holds for a queue as a whole, and who said it: `depth 10,000 (wait), 10 per 1 s, 3 at once; code`."""
    if row is None or row.limits is None:
        return "-"
    limits, parts = row.limits, []
    if limits.max_depth is not None:
        parts.append(f"depth {number(limits.max_depth)} ({limits.when_full})")
    if limits.rate is not None:
        parts.append(f"{number(limits.rate)} per {limits.per:g} s")
    if limits.concurrency is not None:
        parts.append(f"{number(limits.concurrency)} at once")
    if limits.closed is not None:
        parts.append("new ones refused" if limits.closed == "refuse" else "new ones held")
    return f"{', '.join(parts) or 'no limits'}; {row.limits_from}"


LIMIT_COLUMNS = (
    Column("kind", lambda row: row.kind),
    Column("key", lambda row: row.key, wide=True),
    Column("taken", lambda row: number(row.taken), right=True),
    Column("limit", limit_text, right=True),
    Column("waiting", waiting_text, right=True),
    Column("opens", lambda row: "-" if row.opens is None else f"in {span(row.opens)}", spare=1),
)

BREAKER_COLUMNS = (
    Column("breaker", lambda row: row.key, wide=True),
    Column("is", lambda row: row.state),
    Column("since", lambda row: age(row.since)),
    Column("tries again", breaker_text),
    Column("failures", lambda row: number(row.failures), right=True, spare=1),
)

WORKER_COLUMNS = (
    Column("worker", lambda row: row.id),
    Column("host", lambda row: row.host, wide=True, spare=2),
    Column("pid", lambda row: str(row.pid), right=True, spare=1),
    Column("queues", lambda row: row.queues, wide=True),
    Column("slots", lambda row: str(row.concurrency), right=True, spare=3),
    Column("running", lambda row: str(row.running), right=True),
    Column("beat", lambda row: age(row.last_beat)),
    Column("role", lambda row: "leader" if row.leader else "solo" if row.solo else "-"),
)

OUTBOX_COLUMNS = (
    Column("outbox", lambda row: row.name, wide=True),
    Column("relay", lambda row: "silent" if row.silent else "failing" if row.error else "active"),
    Column("waiting", lambda row: number(row.waiting), right=True),
    Column("lag", lambda row: span(row.lag), right=True),
    Column("failed", lambda row: number(row.failed), right=True),
    Column("heard", lambda row: f"{span(row.heard)} ago", spare=1),
    Column("error", lambda row: row.error or "-", wide=True, spare=2),
)

FAILED_COLUMNS = (
    Column("id", lambda row: row.id),
    Column("task", lambda row: row.task),
    Column("queue", lambda row: row.queue, spare=1),
    Column("written", lambda row: f"{span(row.age)} ago", spare=2),
    Column("error", lambda row: row.error, wide=True),
)
