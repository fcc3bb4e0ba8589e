"""Reading: the Inspector protocol, and the small versioned values of the Records protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from dayjob.clock import SECOND
from dayjob.states import State
from dayjob.store.records import Filter, JobRow, Log, Page, QueueRow, Record, Sample, WorkerInfo, WorkerRow
from dayjob.store.redis.acts import AT_ONCE, ActsPart
from dayjob.store.redis.filters import matches
from dayjob.store.redis.part import ENOUGH, MINUTE
from dayjob.store.redis.wire import attempt, micros, row

LOOKED_AT = 5_000
"""Jobs, at most, that one page looks at."""

VALUES = 10_000
"""Values of samples, about, that one script tells."""
LISTED = 20_000
"""Ids, at most, that one script lists."""

_info = msgspec.json.Decoder(WorkerInfo).decode
_log = msgspec.msgpack.Decoder(Log).decode
_counts = msgspec.msgpack.Decoder(list[tuple[str, State, int]]).decode
_oldest = msgspec.msgpack.Decoder(list[tuple[str, int]]).decode
_present = msgspec.msgpack.Decoder(tuple[str, int, int, bool, int]).decode
_version = msgspec.msgpack.Decoder(tuple[int, int]).decode


def _states(which: Filter) -> Sequence[State]:
    return list(State) if which.states is None else list(which.states)


class InspectorPart(ActsPart):
    """The Inspector and Records protocols."""

    def get(self, id: str) -> JobRow | None:
        found = self.rows([id])
        if not found:
            return None
        tried: list[bytes] = self.server.command("LRANGE", f"{self.server.prefix}try:{id}", 0, -1)
        found[0].attempts = [attempt(text) for text in tried]
        return found[0]

    def find(self, which: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        ids = self._few(which, AT_ONCE)
        if ids is not None:
            found = [job for job in self.matching(ids, which, _states(which)) if after is None or job.id < after]
            found.sort(key=lambda job: job.id, reverse=True)
            return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)
        found, looked = [], 0
        step = limit + 1 if which.empty else min(AT_ONCE, max(4 * limit, 100))
        while True:
            end, page = self.server.call("walk", after or "", step, ENOUGH)
            found += [job for job in map(row, page) if matches(job, which)]
            looked += len(page)
            if len(found) > limit:
                return Page(found[:limit], found[limit - 1].id)
            if not end:
                return Page(found, None)
            after = end.decode()
            if looked >= max(LOOKED_AT, 10 * limit):
                return Page(found, after)

    def _few(self, which: Filter, most: int) -> Sequence[str] | None:
        """The ids of the jobs among which those that match are; None when that may be more than *most*."""
        if which.ids is not None:
            return list(dict.fromkeys(which.ids))
        if which.states is None:
            return None
        states = {state.value for state in which.states}
        found = self.server.call("few", which.queue or "", most, *states)
        return None if found is None else [id.decode() for id in found]

    def count(self, which: Filter) -> int:
        if which.ids is not None or (which.task, which.tag, which.since, which.text) != (None,) * 4:
            return sum(1 for _ in self._all(which))
        return sum(
            n
            for queue, state, n in self._counted()
            if (which.states is None or state in which.states) and which.queue in (None, queue)
        )

    def _all(self, which: Filter) -> Iterator[JobRow]:
        """All that match: as one moment listed them, or along their ids, so that none slips from one state to another unseen."""
        ids = self._few(which, LISTED)
        if ids is not None:
            yield from self.matching(ids, which, _states(which))
        elif which.states is not None and len(which.states) == 1:
            yield from self.among(which, list(which.states))
        else:
            after: bytes | None = b""
            while after is not None:
                end, page = self.server.call("walk", after, AT_ONCE, ENOUGH)
                yield from (job for job in map(row, page) if matches(job, which))
                after = end or None

    def _counted(self) -> Sequence[tuple[str, State, int]]:
        return _counts(self.server.call("counts", "0")[0])

    def queues(self, *, now: int | None = None) -> list[QueueRow]:
        now = self.server.now() if now is None else now
        minute = now - now % MINUTE
        numbers, since = self.server.call("counts", "1")
        counts: dict[str, dict[str, int]] = {}
        for queue, state, count in _counts(numbers):
            counts.setdefault(queue, {})[state] = count
        oldest = dict(_oldest(since))
        paused = {queue.decode() for queue in self.server.command("SMEMBERS", f"{self.server.prefix}paused")}
        recent: set[str] = set()
        rates: dict[str, dict[str, float]] = {}
        for sample in self.history(minute - 3600 * SECOND):
            if sample.queue:
                recent.add(sample.queue)
            if sample.at == minute - MINUTE and not sample.name.startswith("depth:"):
                rates.setdefault(sample.queue, {})[sample.name] = sample.value / 60
        return [
            QueueRow(queue, queue in paused, counts.get(queue, {}), oldest.get(queue), rates.get(queue, {}))
            for queue in sorted(paused | recent | counts.keys())
        ]

    def workers(self, *, now: int | None = None) -> list[WorkerRow]:
        reply = self.server.call("present")
        found = []
        for told, info in zip(reply[::2], reply[1::2], strict=True):
            _, started_at, beat_at, leads, held = _present(told)
            found.append(WorkerRow(_info(info), started_at, beat_at, leads, held))
        return sorted(found, key=lambda one: (one.info.name, one.info.id))

    def logs(self, id: str) -> list[Log]:
        return [_log(text) for text in self.server.command("LRANGE", f"{self.server.prefix}log:{id}", 0, -1)]

    def history(self, since: int, queue: str | None = None) -> list[Sample]:
        found: list[Sample] = []
        after: str | bytes = str(since)
        while True:
            more, page = self.server.call("samples", after, VALUES)
            for minute, values in page:
                at = int(minute)
                for field, value in zip(values[::2], values[1::2], strict=True):
                    name, _, of = field.decode().partition("\0")
                    if queue is None or of == queue:
                        found.append(Sample(at, of, name, float(value)))
            if not more:
                break
            after = b"(" + page[-1][0]
        found.sort(key=lambda one: (one.at, one.queue, one.name))
        return found

    # -- records -----------------------------------------------------------------------------------------------

    def read(self, kind: str, key: str, *, now: int | None = None) -> Record | None:
        found, _ = self._read(kind, now, "1", key)
        return found[0] if found else None

    def list(self, kind: str | None, *, now: int | None = None) -> Sequence[Record]:
        found: dict[tuple[str, str], Record] = {}
        for each in self._kinds() if kind is None else [kind]:
            cursor = b"0"
            while True:  # a record may come twice
                some, cursor = self._read(each, now, "0", cursor)
                found.update({(one.kind, one.key): one for one in some})
                if cursor == b"0":
                    break
        return [found[name] for name in sorted(found)]

    def _kinds(self) -> Sequence[str]:
        return [kind.decode() for kind in self.server.command("SMEMBERS", f"{self.server.prefix}kinds")]

    def _read(self, kind: str, now: int | None, one: str, where: str | bytes) -> tuple[Sequence[Record], bytes]:
        stamp, cursor, found = self.server.call("read", self.server.at(now), kind, one, where)
        records = []
        for name, text in zip(found[::2], found[1::2], strict=True):
            length = _length(text)
            version, expires = _version(text[:length])
            if not expires or expires > int(stamp):
                records.append(Record(kind, name.decode(), text[length:], version, expires or None))
        return records, cursor

    def write(
        self,
        kind: str,
        key: str,
        value: bytes,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        now: int | None = None,
    ) -> int | None:
        version: int | None = self.server.call(
            "write",
            self.server.at(now),
            kind,
            key,
            value,
            "" if expected is None else expected,
            "" if ttl is None else micros(ttl, "ttl"),
        )
        return version

    def erase(self, kind: str, key: str, *, expected: int | None = None) -> bool:
        return bool(self.server.call("erase", kind, key, "" if expected is None else expected))


_WIDTHS = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}


def _length(text: bytes) -> int:
    """Bytes of the [version, expiry] at the beginning of a record: a list's byte and two whole numbers."""
    at = 1
    for _ in range(2):
        at += _WIDTHS.get(text[at], 1)
    return at
