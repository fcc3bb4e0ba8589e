"""Settle, stage, claim: the hot path, one script."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dayjob.states import EFFECTS, Outcome, State
from dayjob.store.exits import first_of_each
from dayjob.store.records import Settlement, Turn, Want
from dayjob.store.redis.part import Part
from dayjob.store.redis.server import Server
from dayjob.store.redis.wire import claimed, kept, micros, packed


class TurnPart(Part):
    """The Jobs protocol's `turn`."""

    def __init__(self, server: Server, lease: float) -> None:
        super().__init__(server, lease)
        self.ears_open = (0.0, 0)
        """When a turn last told who listens, and what it told (see `signals`)."""

    def turn(
        self,
        worker: str,
        claim_no: int | None = None,
        settlements: Sequence[Settlement] = (),
        wants: Sequence[Want] = (),
        *,
        now: int | None = None,
    ) -> Turn:
        assert claim_no is not None or not wants, "a claim needs its number"
        refused: list[tuple[str, int]] = []
        if len({one.entry for one in settlements}) < len(settlements):
            settlements = first_of_each(settlements, refused)
        done = [one for one in settlements if one.outcome is Outcome.COMPLETED]
        others = [one for one in settlements if one.outcome is not Outcome.COMPLETED]
        reply = self.server.call(
            "turn",
            self.server.at(now),
            self.server.channels,
            worker,
            "" if claim_no is None else claim_no,
            packed([_want(want) for want in wants]) if wants else b"",
            _completions(done) if done else b"",
            packed([_exit(one) for one in others]) if others else b"",
            *[packed((one.entry, one.started_at, one.finished_at, one.result)) for one in done],
            *[packed((one.entry, one.started_at, one.finished_at, one.error)) for one in others],
            wrote=lambda reply: bool(settlements or reply[7]),
        )
        stamp, control, due, suspects, heard, late, went, ids, entries, blob = reply
        self.ears_open = (time.monotonic(), heard)
        ordered = done + others
        refused += [(ordered[place - 1].id, ordered[place - 1].entry) for place in late]
        return Turn(
            int(stamp),
            claimed(ids, entries, blob) if ids else [],
            refused,
            [
                (one.id, one.entry, State(state.decode()))
                for one, state in zip(others, went, strict=True)
                if state and state.decode() != EFFECTS[one.outcome].state
            ],
            int(control),
            int(due) if due else None,
            bool(suspects),
        )


def _want(want: Want) -> dict[str, Any]:
    return {
        "queues": False if want.queues is None else want.queues,
        "limit": want.limit,
        "exclude": want.exclude,
        "suspects": want.suspects,
        "id": False if want.id is None else want.id,
    }


def _completions(done: Sequence[Settlement]) -> bytes:
    return packed(
        (
            [one.id for one in done],
            [str(one.entry) for one in done],
            [one.finished_at for one in done],
            [kept(one.keep) for one in done],
        )
    )


def _exit(one: Settlement) -> tuple[object, ...]:
    effect = EFFECTS[one.outcome]
    reason = False if one.reason is None else one.reason.replace("\0", "\u2400")  # no engine's text holds a NUL
    return (
        one.id, str(one.entry), one.outcome, effect.attempt, effect.crashes, effect.state, one.started_at > 0,
        one.finished_at, micros(one.delay, "delay"), reason, kept(one.keep),
    )  # fmt: skip
