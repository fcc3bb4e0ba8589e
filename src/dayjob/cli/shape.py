"""How jobs, queues and workers look: as JSON documents with stable names, and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dayjob.cli.output import Column, age, number, span

if TYPE_CHECKING:
    from dayjob.codec.envelope import Failure
    from dayjob.job import Job

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
    Column("is", lambda row: "paused" if row.paused else "active"),
    Column("available", lambda row: number(row.counts["available"]), right=True),
    Column("running", lambda row: number(row.counts["running"]), right=True),
    Column("scheduled", lambda row: number(row.counts["scheduled"]), right=True, spare=1),
    Column("completed", lambda row: number(row.counts["completed"]), right=True),
    Column("dead", lambda row: number(row.counts["dead"]), right=True),
    Column("oldest waits", lambda row: span(row.oldest), right=True),
    Column("done/s", lambda row: f"{row.rates.get('completed', 0.0):,.1f}", right=True, spare=2),
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
