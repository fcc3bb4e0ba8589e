"""Taking part in transactions on the same server: a caller's own, and one that a job is lent."""

from __future__ import annotations

from collections.abc import Sequence

from dayjob.errors import ConfigError, DayjobError, StoreError, StoreUnavailable
from dayjob.store.postgres.accepting import answered, written
from dayjob.store.postgres.database import SCHEMA, Database
from dayjob.store.postgres.faults import translated
from dayjob.store.postgres.lending import Lender, LentTransaction
from dayjob.store.postgres.part import Part, encode, uuids
from dayjob.store.records import (
    Enqueued,
    Lease,
    Log,
    NewRow,
    Script,
    Settlement,
    Standing,
    Statement,
)

AT_ONCE = 1000
"""Rows in one statement."""

_NOT_HERE = ("3F000", "42P01", "42883")  # no such schema, table, function
_ELSEWHERE = "3D000"
"""What `require_home` raises."""
_REPEAT = ("40001", "40P01", "25P03", "55P03", "57014")  # conflicts and time-outs
_BROKEN = ("OperationalError", "PostgresConnectionError", "OSError")
"""What the kinds of error are called that mean a lost connection, where there is no code."""


class JoiningPart(Part):
    """The Joining protocol: functions of the schema do the work, which a caller's role need only be allowed to call."""

    system, exclusive = "postgresql", False

    def __init__(self, db: Database, lease: float) -> None:
        super().__init__(db, lease)
        self.lender = Lender(db)

    @property
    def located(self) -> bool:
        return self.db.located

    def locate(self) -> None:
        self.db.home()

    def enqueue_script(
        self, jobs: Sequence[NewRow], *, repeat: bool = False, now: int | None = None
    ) -> Script[list[Enqueued]]:
        outcomes: list[Enqueued] = []
        for start in range(0, len(jobs), AT_ONCE):
            some = jobs[start : start + AT_ONCE]
            found = yield Statement(self.sql.accept, (written(some), self.db.at(now), self.db.home(), repeat, False))
            outcomes += [answered(job, told, self.db.url) for job, told in zip(some, found, strict=True)]
        return outcomes

    def enqueue_by_function(self, jobs: Sequence[NewRow], *, repeat: bool, now: int | None = None) -> list[Enqueued]:
        """`enqueue` for a role that may call functions only: as in a caller's transaction, which here is our own."""
        script, rows = self.enqueue_script(jobs, repeat=repeat, now=now), None
        with self.db.write() as connection:
            while True:
                try:
                    statement = script.send(rows)  # type: ignore[arg-type]  # None starts a generator
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # what the script returns
                rows = connection.execute(statement.sql, statement.parameters).fetchall()

    def completion_script(
        self, lease: Lease, settlement: Settlement, logs: Sequence[Log] = (), *, now: int | None = None
    ) -> Script[bool]:
        if not uuids([lease.id]):
            return False
        lines = [{"at": log.at, "level": log.level, "message": log.message.replace("\0", "\u2400")} for log in logs]
        found = yield Statement(
            self.sql.complete_joined,
            (
                lease.worker, lease.id, lease.entry, settlement.started_at, settlement.finished_at, settlement.keep,
                settlement.result, encode(lines).decode() if lines else None, self.db.at(now), self.db.home(),
            ),
        )  # fmt: skip
        return bool(found[0][0])

    def standing(self, lease: Lease) -> Standing:
        if not uuids([lease.id]):
            return "lost"
        job = (lease.id, lease.entry)
        # Each looks anew: the transaction may end between two of them.
        with self.db.session() as connection, self.db.under_settings(connection):
            if connection.execute(self.sql.is_free, job).fetchone():
                return "held"
            if connection.execute(self.sql.is_there, job).fetchone():
                return "open"
            return "completed" if connection.execute(self.sql.has_completed, job).fetchone() else "lost"

    def begin(self, *, limit: float | None = None) -> LentTransaction:
        return LentTransaction(self.lender, limit)

    def joined_error(self, error: Exception) -> DayjobError:
        cause: BaseException | None = error
        while cause is not None and _state(cause) is None:
            cause = getattr(cause, "orig", None) or cause.__cause__  # SQLAlchemy has it in `orig`
        state = None if cause is None else _state(cause)
        if state is None:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            said = f"{self.db.url}: your connection could not run dayjob's statement: {error}"
            return StoreUnavailable(said) if kinds.intersection(_BROKEN) else StoreError(said)
        if state == _ELSEWHERE:
            self.db.forget_home()
            return ConfigError(
                f"{str(cause).splitlines()[0]}, the jobs are in {self.db.url}: one transaction does not span two databases. "
                "Keep the jobs in the application's database, or use app.outbox(...), which carries them over"
            )
        if state in _NOT_HERE:
            return ConfigError(
                f"the database of this connection has no schema {self.db.namespace!r} of dayjob's ({error}). Is it another "
                f"one than {self.db.url}? One transaction does not span two: use app.outbox(...). Else: dayjob migrate"
            )
        if state == "25P02":
            return StoreError(f"something in your transaction had failed before: roll back and repeat it ({error})")
        if state in _REPEAT:
            return StoreUnavailable(f"your transaction was in another's way: roll back and repeat it ({error})")
        return translated(_Coded(str(error), state), self.db.url, SCHEMA)


class _Coded(Exception):
    """An error of any driver, as `translated` reads it."""

    def __init__(self, said: str, sqlstate: str) -> None:
        super().__init__(said)
        self.sqlstate = sqlstate


def _state(error: BaseException) -> str | None:
    """The SQLSTATE, under the names that the drivers have for it."""
    found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return found if isinstance(found, str) else None
