"""A statement under way while its thread does something else: sent now, answered later.

psycopg's pipeline mode sends without waiting, too, but commits only when the answer is asked for. Here the transaction
ends by itself as soon as the server is done, whenever we look.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from psycopg import OperationalError, errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from dayjob.store.postgres.database import Connection

PATIENCE = 60.0
"""Seconds without a word from the server, whose own time limit for a statement is half of that."""

_prepared: WeakKeyDictionary[Connection, set[str]] = WeakKeyDictionary()


class Freight(NamedTuple):
    """Parameters as they go over the line: a value each, how it is written (`pq.Format`), and the types, () for those
    that the statement itself tells."""

    values: Sequence[bytes | None]
    formats: Sequence[int]
    types: Sequence[int] = ()

    @classmethod
    def of(cls, connection: Connection, parameters: Sequence[Any]) -> Freight:
        """*parameters* as the driver adapts them."""
        adapt = Transformer(connection)
        values = adapt.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
        return cls(values, adapt.formats or (), adapt.types or ())  # type: ignore[arg-type]  # Buffer: bytes


def written(row: Iterable[str | bytes | int | float | None]) -> Freight:
    """One row, without the driver's adaptation, which costs as much as the statement. Texts go as they are, in the binary
    format, where the server refuses what is no text (a NUL); numbers and booleans as text."""
    values: list[bytes | None] = []
    formats = []
    for value in row:
        binary = isinstance(value, str | bytes)
        values.append(value if value is None or isinstance(value, bytes) else str(value).encode())
        formats.append(int(binary))
    return Freight(values, formats)


class Flight:
    """One statement, in a transaction of its own, on a connection that nobody else uses until it has landed."""

    def __init__(self, connection: Connection, name: str, statement: str, freight: Freight) -> None:
        self._connection, self._pgconn = connection, connection.pgconn
        self._name, self._statement, self._freight = name, statement, freight
        self._take_off()

    def _take_off(self) -> None:
        name = self._name.encode()
        known = _prepared.setdefault(self._connection, set())
        if self._name not in known:
            self._pgconn.nonblocking = 0
            try:
                prepared = self._pgconn.prepare(name, self._statement.encode(), self._freight.types)
            finally:
                self._pgconn.nonblocking = 1
            _checked(prepared, ExecStatus.COMMAND_OK)
            known.add(self._name)
        self._pgconn.send_query_prepared(name, self._freight.values, param_formats=self._freight.formats)
        while self._pgconn.flush():
            self._wait(write=True)

    def land(self) -> bytes | None:
        """Wait for the answer: the first column of its first row, as text.

        Raises:
            psycopg.Error: as the driver itself would.
        """
        try:
            return self._answer()
        except errors.InvalidSqlStatementName:  # after some errors the driver drops everything that was prepared
            _prepared[self._connection].discard(self._name)
            self._take_off()
            return self._answer()

    def _answer(self) -> bytes | None:
        answer: PGresult | None = None
        while True:
            while self._pgconn.is_busy():
                self._wait()
                self._pgconn.consume_input()
            result = self._pgconn.get_result()
            if result is None:
                break
            answer = answer or result
        assert answer is not None
        _checked(answer, ExecStatus.TUPLES_OK)
        return answer.get_value(0, 0)

    def _wait(self, *, write: bool = False) -> None:
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN | (select.POLLOUT if write else 0))
        if not poll.poll(PATIENCE * 1000):
            raise OperationalError(f"no word from the server for {PATIENCE:g} s")
        if write:
            self._pgconn.consume_input()


def _checked(result: PGresult, wanted: ExecStatus) -> None:
    if result.status != wanted:
        raise errors.error_from_result(result)
