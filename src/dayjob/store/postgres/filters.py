"""A `Filter` as SQL: the one place where conditions on jobs are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dayjob.states import State
from dayjob.store.postgres.part import uuids
from dayjob.store.records import Filter

RUNNING = "(j.entry IN (SELECT unnest(l.entries) FROM {ns}.lease AS l WHERE l.open > 0)) IS TRUE"
"""A live job's state says `available` while it runs: what runs is in an open lease."""

STATE = f"CASE WHEN j.state = 'available' AND {RUNNING} THEN 'running' ELSE j.state END"


class Condition:
    """A condition on `j`, a live or a finished job, and its numbered parameters."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._parts: list[str] = []
        self.values: list[Any] = []

    def add(self, text: str, *values: Any) -> None:
        """One more condition; each `?` in it stands for the next of *values*."""
        for value in values:
            self.values.append(value)
            text = text.replace("?", f"${len(self.values)}", 1)
        self._parts.append(text.replace("{ns}", f'"{self._namespace}"'))

    def parameter(self, value: Any) -> str:
        """The placeholder of a further parameter."""
        self.values.append(value)
        return f"${len(self.values)}"

    @property
    def narrows(self) -> bool:
        """False when it holds for every job."""
        return bool(self._parts)

    def __str__(self) -> str:
        return " AND ".join(self._parts) or "true"


def where(which: Filter, states: Sequence[str] | None, namespace: str, *, live: bool) -> Condition:
    """What *which* asks of the live or of the finished jobs; *states* replaces the filter's own."""
    found = Condition(namespace)
    if which.ids is not None:
        found.add("j.id = ANY (?::uuid[])", uuids(which.ids))
    if states is not None:
        _add_states(found, [str(state) for state in states], live=live)
    if which.queue is not None:
        found.add("j.queue = ?", _clean(which.queue))
    if which.task is not None:
        found.add("j.task = ?", _clean(which.task))
    if which.entry is not None:
        found.add("j.entry = ?" if live else "false", *([which.entry] if live else []))
    if which.since is not None:
        found.add("j.created_at >= ?", which.since)
    if which.tag is not None:
        found.add("j.tags IS NOT NULL AND j.tags::jsonb @> to_jsonb(?::text)", _clean(which.tag))
    if which.text is not None:
        text = _clean(which.text).lower()
        fields = ("j.id::text", "j.task", "coalesce(j.tags, '')", "coalesce(j.meta, '')")
        found.add("(" + " OR ".join(f"strpos(lower({field}), ?) > 0" for field in fields) + ")", *[text] * len(fields))
    return found


def _add_states(found: Condition, states: list[str], *, live: bool) -> None:
    if not live:
        found.add("j.state = ANY (?::text[])", states)
        return
    parts = []
    if State.RUNNING in states and State.AVAILABLE in states:
        parts.append("j.state = 'available'")
    elif State.RUNNING in states:
        parts.append(f"j.state = 'available' AND {RUNNING}")
    elif State.AVAILABLE in states:
        parts.append(f"j.state = 'available' AND NOT {RUNNING}")
    parts += [f"j.state = '{state}'" for state in (State.SCHEDULED, State.BLOCKED) if state in states]
    found.add("(" + " OR ".join(parts or ["false"]) + ")")


def _clean(text: str) -> str:
    """A NUL is in no stored text."""
    return text.replace("\0", "\u2400")


def among(which: Filter, table: str, condition: Condition) -> str:
    """*table* as `j`, for FROM; where ids are given, no more of it than those.

    OFFSET 0: a plan that was made when there were few jobs would rather go by state, past all that waits.
    """
    if which.ids is None:
        return f"{table} AS j"
    return f"(SELECT j.* FROM {table} AS j WHERE j.id = ANY ({condition.parameter(uuids(which.ids))}::uuid[]) OFFSET 0) AS j"
