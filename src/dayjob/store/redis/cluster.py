"""Beats, leadership, rescue, leaving; and the rest of the leader's upkeep."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import msgspec

from dayjob.clock import SECOND
from dayjob.errors import StoreUnavailable
from dayjob.states import State
from dayjob.store.records import Beat, Bound, Gone, Rescued, Tally, WorkerInfo
from dayjob.store.redis.acts import AT_ONCE, ActsPart
from dayjob.store.redis.health import require_no_eviction
from dayjob.store.redis.server import Server
from dayjob.store.redis.wire import given, packed

_to_json = msgspec.json.Encoder(decimal_format="number").encode
_info = msgspec.json.Decoder(WorkerInfo).decode
_over = msgspec.msgpack.Decoder(tuple[str, int, list[tuple[str, int, str, str, State, int, str | bool]]]).decode

PAGE = 1000
DEPTHS = 100
"""Depths, at most, that are kept of a minute: a week of them takes 60 MB of memory."""
FORGOTTEN = 5000
"""Ids, at most, that one script forgets of jobs that are gone."""
LISTED_FOR = 30.0
"""Seconds for which a list of what is to be pruned is good."""


class ClusterPart(ActsPart):
    """The Cluster and Upkeep protocols."""

    def __init__(self, server: Server, lease: float) -> None:
        super().__init__(server, lease)
        self._safe = ""
        """The worker for which it was seen that this server evicts nothing."""
        self._listed: dict[tuple[object, ...], tuple[float, int, list[str]]] = {}
        """By bound: when (monotonic, and the store's stamp) its jobs were listed, and those that are still to go."""

    def beat(
        self,
        worker: WorkerInfo,
        held: Sequence[int],
        tallies: Sequence[Tally] = (),
        *,
        claims: int | None = None,
        now: int | None = None,
    ) -> Beat:
        if worker.id != self._safe:  # asked by each incarnation once: who cannot beat claims nothing
            require_no_eviction(self.server)
            self._safe = worker.id
        expiry = int(worker.expiry * SECOND)
        reply = self.server.call(
            "beat",
            self.server.at(now),
            packed((worker.id, worker.name, worker.solo, expiry, self.half, False if claims is None else claims)),
            _to_json(worker),
            packed(held),
            packed(list(_counts(tallies))),
        )
        if reply[1]:
            return Beat(int(reply[0]), lost=True)
        stamp, _, control, term, asked, paused = reply
        pairs = zip(asked[::2], asked[1::2], strict=True)
        return Beat(
            int(stamp),
            False,
            tuple((id.decode(), int(entry)) for id, entry in pairs),
            frozenset(queue.decode() for queue in paused),
            int(control),
            int(term) if term else None,
        )

    def leave(self, worker: str, *, death: str | None = None, now: int | None = None) -> Gone | None:
        taken: list[Gone] = []
        more = 1
        while more:
            reply = self.server.call("leave", self.server.at(now), worker, death or "", AT_ONCE)
            if reply is None:  # at the first call, or somebody else has taken the rest of it meanwhile
                break
            more, *told = reply
            taken.append(_gone(*told))
        return _joined(taken)[0] if taken else None

    def pause(self, queue: str, paused: bool, *, now: int | None = None) -> bool:
        return bool(self.server.call("pause", queue, "SADD" if paused else "SREM"))

    # -- upkeep ------------------------------------------------------------------------------------------------

    def stage(self, term: int, *, limit: int = 1000, now: int | None = None) -> tuple[int, int | None] | None:
        reply = self.server.call("stage", self.server.at(now), term, limit)
        return None if reply is None else (reply[0], int(reply[1]) if reply[1] else None)

    def rescue(self, term: int, *, now: int | None = None) -> list[Gone] | None:
        taken: list[Gone] | None = None
        more = 1
        while more:
            try:
                reply = self.server.call("rescue", self.server.at(now), term, self.half, AT_ONCE)
            except StoreUnavailable:
                if not taken:
                    raise
                break  # what was taken is told; the next sweep takes the rest
            if reply is None:
                break
            more, *told = reply
            taken = (taken or []) + [_gone(*pair) for pair in zip(told[::2], told[1::2], strict=True)]
        return None if taken is None else _joined(taken)

    def prune(self, term: int, bounds: Sequence[Bound], *, limit: int = 1000, now: int | None = None) -> int | None:
        plain = [
            (str(bound.state), False if bound.queue is None else bound.queue, bound.count, bound.exclude)
            for bound in bounds
            if bound.task is None
        ]
        pruned: int | None = 0
        more = 1
        while more and pruned is not None:
            left = limit - pruned
            reply = self.server.call("prune", self.server.at(now), term, left, packed(plain), FORGOTTEN)
            pruned, more = (None, 0) if reply is None else (pruned + reply[0], reply[1])
        for bound in bounds:
            if pruned is not None and bound.task is not None and pruned < limit:
                pruned = self._prune_task(term, bound, limit, pruned, now)
        return pruned

    def _prune_task(self, term: int, bound: Bound, limit: int, pruned: int, now: int | None) -> int | None:
        """Prune one task's jobs, of which those that are too many are listed once for all the calls that this takes."""
        key = (bound.state, bound.queue, bound.task, bound.count)
        found_at, until, beyond = self._listed.pop(key, (0.0, 0, []))
        if not beyond or time.monotonic() - found_at > LISTED_FOR:
            found_at, until = time.monotonic(), self.server.now() if now is None else now
            beyond = self._beyond(bound)
        some, rest = beyond[: limit - pruned], beyond[limit - pruned :]
        went = self.server.call("prune_ids", self.server.at(now), term, packed(some), until)
        if rest and went is not None:
            self._listed[key] = (found_at, until, rest)
        return None if went is None else pruned + went

    def _beyond(self, bound: Bound) -> list[str]:
        """The oldest jobs of one task that are too many: scripts keep no list by task, so all of its state are looked at."""
        queues = [bound.queue]
        if bound.queue is None:
            lists = [name.decode() for name in self.server.command("SMEMBERS", f"{self.server.prefix}ends")]
            queues = [name.partition(":")[2] for name in lists if name.startswith(f"{bound.state.value}:")]
        found: set[tuple[int, str]] = set()
        for queue in queues:
            at, came = 0, PAGE
            while came == PAGE:
                came, some = self.server.call("ended", bound.state.value, queue, bound.task, at, PAGE)
                found.update((int(score), id.decode()) for id, score in zip(some[::2], some[1::2], strict=True))
                at += came
        return [id for _, id in sorted(found)[: max(0, len(found) - bound.count)]]

    def sample(self, term: int, *, now: int | None = None) -> bool | None:
        return None if self.server.call("sample", self.server.at(now), term, DEPTHS) is None else True


def _counts(tallies: Sequence[Tally]) -> Iterator[tuple[str, str, str]]:
    for tally in tallies:
        yield tally.queue, tally.name, str(tally.count)
        if tally.busy:
            yield tally.queue, f"busy:{tally.name}", repr(tally.busy)


def _joined(parts: Sequence[Gone]) -> list[Gone]:
    """What was taken piece by piece, so that no script takes long: one `Gone` for each worker."""
    whole: dict[str, Gone] = {}
    for one in parts:
        if one.worker.id in whole:
            whole[one.worker.id].jobs.extend(one.jobs)
        else:
            whole[one.worker.id] = one
    return list(whole.values())


def _gone(told: bytes, info: bytes) -> Gone:
    worker, last_beat, jobs = _over(told)
    taken = [
        Rescued(id, entry, task, queue, worker, state, crashes, given(reason))
        for id, entry, task, queue, state, crashes, reason in jobs
    ]
    return Gone(_info(info), last_beat, taken)
