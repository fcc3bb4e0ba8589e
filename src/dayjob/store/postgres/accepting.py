"""Rows on their way to `accept_rows`, and what became of each: of callers' transactions, and of rows that have a gating or a
queue with limits."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from dayjob.errors import DayjobError, JobExists, QueueClosed, QueueFull, StoreUnavailable
from dayjob.store.postgres.part import encode
from dayjob.store.records import EXISTING, INSERTED, Enqueued, NewRow

_PLAIN = tuple(name for name in NewRow.__struct_fields__ if name not in ("payload", "options"))


def written(jobs: Sequence[NewRow]) -> str:
    """*jobs* as `accept_rows` reads them."""
    return encode([_row(job) for job in jobs]).decode()


def answered(job: NewRow, told: Sequence[Any], url: str) -> Enqueued:
    """What became of *job*, of which *told* tells: number, outcome, id, detail. Text is bytes in a session without an encoding."""
    outcome, id, detail = (each.decode() if isinstance(each, bytes) else each for each in told[1:4])
    if outcome == "inserted":
        return INSERTED
    if outcome == "existing":
        return EXISTING if id is None else Enqueued("existing", id=id)
    if outcome in ("replaced", "extended"):
        return Enqueued("replaced" if outcome == "replaced" else "extended", id=id)
    return Enqueued("refused", _refusal(job, outcome, id, detail, url), id)


def _refusal(job: NewRow, outcome: str, id: str | None, detail: str, url: str) -> DayjobError:
    if outcome == "held":
        return JobExists(detail, id or "")
    if outcome == "full":
        depth, limit = detail.split()
        return QueueFull(job.queue, int(depth), int(limit))
    if outcome == "closed":
        return QueueClosed(job.queue)
    return StoreUnavailable(f"{url}: an open transaction is storing a job of this key or id; repeat when it has ended")


def _row(job: NewRow) -> dict[str, object]:
    given = {name: getattr(job, name) for name in _PLAIN if getattr(job, name) is not None}
    given["payload"] = b64encode(job.payload).decode()
    if job.options is not None:
        given["options"] = b64encode(job.options).decode()
    return given
