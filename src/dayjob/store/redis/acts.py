"""Cancel, retry, delete, edit: acting on many jobs at once.

Candidates are looked up by state and filtered here; what becomes of each is decided by one script, which looks again at
all that can have changed meanwhile: state and queue. Task, tags, meta and the time of creation never change.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import islice

from msgspec.structs import replace

from dayjob.states import State
from dayjob.store.records import FITS, Action, Cancel, Delete, Edit, Filter, JobRow, Retry
from dayjob.store.redis.filters import matches
from dayjob.store.redis.jobs import JobsPart
from dayjob.store.redis.part import ENOUGH
from dayjob.store.redis.wire import gated, kept, packed, ranked, row, stamped

AT_ONCE = 1000
_VERBS = {Cancel: "cancel", Retry: "retry", Delete: "delete", Edit: "edit"}


class ActsPart(JobsPart):
    """The Jobs protocol's `act`, and looking for jobs by state."""

    def act(self, which: Filter, action: Action, *, limit: int = 1000, now: int | None = None) -> list[str]:
        live, done = FITS[type(action)]
        fitting = [State(s) for s in (*live, *done) if which.states is None or State(s) in which.states]
        if not fitting or limit <= 0:
            return []
        touched: list[str] = []
        tried: set[str] = set()
        while len(touched) < limit:
            # All that is wanted is found before any of it is touched: what is touched leaves the list that is read.
            batch = list(islice(self.among(which, fitting, tried), limit - len(touched)))
            tried.update(job.id for job in batch)
            for at in range(0, len(batch), AT_ONCE):
                touched += self._act(batch[at : at + AT_ONCE], fitting, which, action, now)
            if not batch:
                break
        return touched

    def _act(
        self, jobs: Sequence[JobRow], fitting: Sequence[State], which: Filter, action: Action, now: int | None
    ) -> list[str]:
        how: tuple[object, ...] = ()
        anew: list[bytes] = []
        if isinstance(action, Cancel):
            reason = False if action.reason is None else action.reason.replace("\0", "\u2400")
            how = (reason, kept(action.keep))
        elif isinstance(action, Edit):
            how = (
                False if action.run_at is None else stamped(action.run_at, "run_at"),
                False if action.priority is None else ranked(action.priority),
                False if action.queue is None else action.queue,
                False if which.entry is None else which.entry,
                False if action.gating is None else gated(replace(action.gating, unique=None)),
            )
            if action.payload is not None:
                anew = [packed((one.max_attempts, one.tags, one.meta, one.options, action.payload)) for one in jobs]
        touched = self.server.call(
            "act",
            self.server.at(now),
            _VERBS[type(action)],
            packed(how),
            packed([job.id for job in jobs]),
            packed([str(state) for state in fitting]),
            "" if which.queue is None else which.queue,
            *anew,
        )
        return [id.decode() for id in touched]

    def among(self, which: Filter, states: Sequence[State], without: Container[str] = ()) -> Iterator[JobRow]:
        """The jobs in *states* that match, state by state, in pages, but for those of *without*."""
        if which.ids is not None:
            ids = [id for id in dict.fromkeys(which.ids) if id not in without]
            for at in range(0, len(ids), AT_ONCE):
                yield from self.matching(ids[at : at + AT_ONCE], which, states)
            return
        seen: set[str] = set()
        for state in states:
            at, page = 0, [b""]
            while page:
                page = self.server.call("among", state.value, which.queue or "", at, AT_ONCE)
                at += len(page)
                ids = [id for id in map(bytes.decode, page) if id not in seen and id not in without]
                seen.update(ids)
                yield from self.matching(ids, which, states)
                if len(page) < AT_ONCE:
                    break

    def matching(self, ids: Sequence[str], which: Filter, states: Sequence[State]) -> Iterator[JobRow]:
        """Those of *ids* that are in *states* and match."""
        for job in self.rows(ids):
            if job.state in states and matches(job, which):
                yield job

    def rows(self, ids: Sequence[str]) -> list[JobRow]:
        """Those of *ids* that exist, each as one moment shows it."""
        found: list[JobRow] = []
        at = 0
        while at < len(ids):
            came, some = self.server.call("get", ENOUGH, *ids[at : at + AT_ONCE])
            found += map(row, some)
            at += came
        return found
