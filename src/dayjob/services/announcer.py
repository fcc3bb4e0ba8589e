"""What code declares gets into the store, and that it is still declared stays known there.

Each worker writes down its schedules when it starts, and says every half minute which they are; workers of the same code say it in
one record. A schedule that nobody has said for `LIFE` seconds is no longer declared anywhere: the leader reports it and lets it rest.
So an old and a new release may run beside each other, and several programs may share a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from dayjob.events import Bus
from dayjob.service import Service
from dayjob.services.agenda import CODE, DELETED, KIND, REVISION, Definition, declared, encode, entry_of
from dayjob.store.contract import Store
from dayjob.store.records import Record

LIFE = 90.0
EVERY = 30.0

Declarations = Mapping[str, tuple[Definition, str]]
"""By name: the definition, and where in the code it is."""


class Announcer(Service):
    """Declares the schedules of this worker's code, and goes on saying so."""

    def __init__(self, store: Store, bus: Bus, declarations: Declarations) -> None:
        super().__init__("announcer", bus)
        self._store, self._declarations = store, declarations
        self._declared = False

    def tick(self) -> float:
        if not self._declared:
            if not declare(self._store, self._declarations):
                return 0.1
            self._declared = True
        announce(self._store, self._declarations)
        return EVERY


def declare(store: Store, declarations: Declarations) -> bool:
    """Write down what is new of *declarations*; False when somebody wrote at the same time: again, then."""
    known = {record.key: record for record in store.list(KIND)}
    now, done, changed = store.now(), True, False
    for name, (definition, where) in declarations.items():
        record = known.get(name)
        try:
            before = None if record is None or record.value == DELETED else entry_of(record)
        except ValueError:  # what cannot be read is a newer release's, which knows better; the scheduler reports it
            continue
        after = declared(before, definition, where, now)
        if after is before:
            continue
        if store.write(KIND, name, encode(after), expected=0 if record is None else record.version) is None:
            done = False
        changed = True
    if changed:
        store.write(*REVISION, b"")
    return done


def announce(store: Store, names: Sequence[str] | Declarations) -> None:
    """Say that the schedules *names* are declared in living code; the leader hears at once what nobody had said lately."""
    text = msgspec.json.encode(sorted(names))
    if store.write(CODE, hashlib.sha256(text).hexdigest()[:32], text, ttl=LIFE) == 1:
        store.write(*REVISION, b"")


def announced(records: Sequence[Record]) -> frozenset[str] | None:
    """The schedules that living code declares, from the records of kind `CODE`; None when no worker has said anything."""
    if not records:
        return None
    return frozenset(name for record in records for name in msgspec.json.decode(record.value, type=list[str]))
