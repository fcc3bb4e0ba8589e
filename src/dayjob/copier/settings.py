"""What a store knows beside its jobs: which queues are paused, and its records (settings, schedules, guards)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dayjob.clock import SECOND
from dayjob.copier.report import HISTORY, KIND, Count, Report
from dayjob.copier.steps import patiently
from dayjob.errors import BadRow
from dayjob.outbox.report import KIND as OUTBOX
from dayjob.services.agenda import CODE

if TYPE_CHECKING:
    from dayjob.store.contract import Store
    from dayjob.store.records import Record

LOCAL = frozenset({KIND, HISTORY, OUTBOX, CODE})
"""Kinds of records that tell how this one store stands, its relays or workers: where jobs have gone others tell it."""


class Settings:
    """Pauses and records of *source* on their way to *target*; what becomes of each is counted in *report*."""

    def __init__(self, source: Store, target: Store, report: Report) -> None:
        self.source, self.target, self.report = source, target, report
        self._written: dict[tuple[str, str], tuple[bytes, int]] = {}

    def plan(self, *, there: bool) -> None:
        """Count them as a copy would find them; *there*: the target has a schema."""
        pauses, count = self.report.count("pauses"), self.report.count("records")
        paused = {one.name for one in patiently(self.target.queues) if one.paused} if there else set()
        for queue in self._paused():
            pauses.found += 1
            pauses.there += queue in paused
            pauses.copied += queue not in paused
        known = {(one.kind, one.key): one.value for one in self.target.list(None)} if there else {}
        for record in self._records():
            count.found += 1
            value = known.get((record.kind, record.key))
            count.copied += value is None
            count.there += value == record.value
            count.refused += value is not None and value != record.value

    def copy(self) -> None:
        """Before the jobs: a queue that is paused must not begin to run because it moves. A later call adds what is new."""
        count, earlier = Count(), self.report.count("pauses").copied
        self.report.counts["pauses"] = count
        for queue in self._paused():
            count.found += 1
            try:
                new = patiently(lambda queue=queue: self.target.pause(queue, True))  # type: ignore[misc]
            except BadRow as error:
                count.refused += 1
                self.report.problem(f"the pause of {queue}", str(error))
                continue
            count.copied += new
            count.there += not new
        ours = min(earlier, count.there)  # the target has them, from the earlier call
        count.copied, count.there = count.copied + ours, count.there - ours
        count = self.report.counts["records"] = Count()
        for record in self._records():
            count.found += 1
            try:
                self._copy(record, count)
            except BadRow as error:
                count.refused += 1
                self.report.problem(f"record {record.kind}/{record.key}", str(error))

    def _paused(self) -> list[str]:
        return [one.name for one in patiently(self.source.queues) if one.paused]

    def _records(self) -> list[Record]:
        return [record for record in patiently(lambda: self.source.list(None)) if record.kind not in LOCAL]

    def _copy(self, record: Record, count: Count) -> None:
        """Write what is not there, and what this copy wrote and the source changed since; never over somebody else's."""
        name = record.kind, record.key
        value, version = self._written.get(name, (b"", 0))
        now = patiently(self.source.now)
        ttl = None if record.expires_at is None else (record.expires_at - now) / SECOND
        if ttl is not None and ttl <= 0:
            count.over += 1
            return
        if version and value == record.value:
            count.copied += 1
            return
        written = patiently(lambda: self.target.write(*name, record.value, expected=version, ttl=ttl))
        if written is not None:
            self._written[name] = record.value, written
            count.copied += 1
            return
        found = patiently(lambda: self.target.read(*name))
        if found is not None and found.value == record.value:
            count.there += 1
        else:
            count.refused += 1
            why = "the target has another value; it was kept as it is there"
            self.report.problem(f"record {record.kind}/{record.key}", why)
