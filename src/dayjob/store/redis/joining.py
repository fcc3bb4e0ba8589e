"""Taking part in transactions: there is none here that an application could share, and it is said so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from dayjob.errors import DayjobError, NotSupported
from dayjob.store.contract import Transaction
from dayjob.store.records import Enqueued, Lease, Log, NewRow, Script, Settlement, Standing
from dayjob.store.redis.faults import translated
from dayjob.store.redis.part import Part
from dayjob.store.redis.server import SCHEMA


class JoiningPart(Part):
    """The Joining protocol, refused."""

    system, exclusive, located = "", False, True

    def locate(self) -> None:
        """There is nothing to learn."""

    def enqueue_script(
        self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None
    ) -> Script[list[Enqueued]]:
        self._refuse("conn=, app.transaction(...)")

    def completion_script(
        self, lease: Lease, settlement: Settlement, logs: Sequence[Log] = (), *, now: int | None = None
    ) -> Script[bool]:
        self._refuse("ctx.complete_in(...)")

    def standing(self, lease: Lease) -> Standing:
        self._refuse("ctx.complete_in(...)")

    def begin(self, *, limit: float | None = None) -> Transaction:
        self._refuse("ctx.transaction()")

    def joined_error(self, error: Exception) -> DayjobError:
        return translated(error, self.server.url, SCHEMA)

    def _refuse(self, option: str) -> NoReturn:
        raise NotSupported(
            option,
            f"jobs in {self.server.url} are in no transaction of a database; keep them in PostgreSQL or SQLite for that, or "
            "write so that a second run does no harm",
        )
