"""A `Filter` on rows: the one place where conditions on jobs are written."""

from __future__ import annotations

import msgspec

from dayjob.store.records import Filter, JobRow

_tags = msgspec.json.Decoder().decode


def matches(job: JobRow, which: Filter) -> bool:
    """Whether all conditions of *which* hold for *job*."""
    return (
        (which.states is None or job.state in which.states)
        and (which.ids is None or job.id in which.ids)
        and (which.entry is None or job.entry == which.entry)
        and (which.queue is None or job.queue == which.queue)
        and (which.task is None or job.task == which.task)
        and (which.since is None or job.created_at >= which.since)
        and (which.tag is None or _tagged(job.tags, which.tag))
        and (which.text is None or _says(job, which.text.lower()))
    )


def _tagged(tags: str | None, tag: str) -> bool:
    try:
        return tags is not None and tag in _tags(tags)
    except (msgspec.DecodeError, TypeError):
        return False


def _says(job: JobRow, text: str) -> bool:
    return any(text in field.lower() for field in (job.id, job.task, job.tags or "", job.meta or ""))
