"""A `Filter` as SQL: the one place where conditions on jobs are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dayjob.store.records import Filter
from dayjob.store.sqlite.part import text


def where(which: Filter, states: Sequence[str] | None, *, by_id: bool = False) -> tuple[str, list[Any]]:
    """The condition and its parameters; *states* replaces the filter's own.

    With *by_id* the planner is kept from the index by state (a unary plus), because the rows are wanted in the order
    of their ids and a page of the common states is found sooner that way.
    """
    parts, values = ["1"], list[Any]()
    if which.ids is not None:
        parts.append("id IN (SELECT value FROM json_each(?))")
        values.append(text(which.ids))
    if states is not None:
        parts.append(f"{'+' if by_id else ''}state IN ({', '.join('?' * len(states))})")
        values += [str(state) for state in states]
    for column in ("queue", "task"):
        if (value := getattr(which, column)) is not None:
            parts.append(f"{'+' if by_id else ''}{column} = ?")
            values.append(value)
    if which.entry is not None:
        parts.append("entry = ?")
        values.append(which.entry)
    if which.since is not None:
        parts.append("created_at >= ?")
        values.append(which.since)
    if which.tag is not None:
        parts.append("tags IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)")
        values.append(which.tag)
    if which.text is not None:
        fields = ("id", "task", "coalesce(tags, '')", "coalesce(meta, '')")
        parts.append("(" + " OR ".join(f"instr(lower({field}), lower(?)) > 0" for field in fields) + ")")
        values += [which.text] * len(fields)
    return " AND ".join(parts), values
