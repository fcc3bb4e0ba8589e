"""Breakers: counted by what calls report, shared by all who call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from dayjob.clock import SECOND
from dayjob.store.gating import BreakerRow, Report
from dayjob.store.postgres.database import Connection
from dayjob.store.postgres.limits import LimitsPart
from dayjob.store.postgres.wire import words


class _Breaker(NamedTuple):
    """A breaker as it is stored. fails: stamps. within: seconds, of the last report."""

    key: str
    state: Literal["closed", "open", "probing"]
    since: int
    until: int | None
    fails: list[int]
    within: float

    def at(self, now: int) -> _Breaker:
        """As it stands: failures beyond the window are forgotten, a cooldown that is over lets it be probed."""
        fails = [stamp for stamp in self.fails if stamp > now - self.within * SECOND]
        if self.state == "open" and self.until is not None and self.until <= now:
            return self._replace(state="probing", since=self.until, until=None, fails=fails)
        return self._replace(fails=fails)

    def after(self, report: Report, now: int) -> _Breaker:
        """What *report* makes of it."""
        if self.state == "open":
            return self
        if not report.failed:
            return self if self.state == "closed" else _Breaker(self.key, "closed", now, None, [], report.within)
        kept = [stamp for stamp in self.fails if stamp > now - report.within * SECOND]
        fails = [*kept, now][-max(report.failures, 1) :]
        if self.state == "probing" or len(fails) >= report.failures:
            return _Breaker(self.key, "open", now, now + int(report.cooldown * SECOND), fails, report.within)
        return self._replace(fails=fails, within=report.within)

    @property
    def row(self) -> BreakerRow:
        return BreakerRow(self.key, self.state, self.since, self.until, len(self.fails))


class BreakersPart(LimitsPart):
    """The Gates protocol's breakers."""

    def report(self, reports: Sequence[Report], *, now: int | None = None) -> list[BreakerRow]:
        if not any(report.failed for report in reports) and self._all_closed(reports):
            return []
        with self.db.write() as connection:
            moment = self._now(connection, now)
            before = self._known(connection, {report.key for report in reports}, moment)
            after = dict(before)
            for report in reports:
                one = after.get(report.key) or _Breaker(report.key, "closed", moment, None, [], report.within)
                after[report.key] = one.after(report, moment)
            changed = [one for key, one in sorted(after.items()) if one != before.get(key)]
            for one in changed:
                known = before.get(one.key)
                self._become(connection, one, moved=one.state != (known.state if known else "closed"))
        return [one.row for one in changed]

    def _all_closed(self, reports: Sequence[Report]) -> bool:
        """Whether no breaker is there to be told of successes: then nobody has to wait for a turn."""
        with self.db.session() as connection, self.db.under_settings(connection):
            keys = words(sorted({report.key for report in reports}))
            rows = connection.execute(self.sql.breakers, (keys,)).fetchall()
        return all(row[1] == "closed" for row in rows)

    def _known(self, connection: Connection, keys: set[str] | None, now: int) -> dict[str, _Breaker]:
        sought = None if keys is None else words(sorted(keys))
        rows = connection.execute(self.sql.breakers, (sought,)).fetchall()
        return {row[0]: _Breaker(*row).at(now) for row in rows}

    def _become(self, connection: Connection, one: _Breaker, *, moved: bool) -> None:
        if one.state == "closed" and not one.fails:
            connection.execute(self.sql.forget_breaker, (one.key,))
        else:
            connection.execute(self.sql.set_breaker, (*one[:4], list(one.fails), one.within))
        if moved:
            if one.state == "open":
                connection.execute(self.sql.park_behind, (one.key,))
            connection.execute(self.sql.wake_gate, ("breaker", one.key))
            connection.execute(self.sql.bump_control)

    def breakers(self, *, now: int | None = None) -> list[BreakerRow]:
        now = self.db.at(now) or self.db.now()
        with self.db.read() as connection:
            known = self._known(connection, None, now)
        return [one.row for _, one in sorted(known.items()) if one.state != "closed" or one.fails]

    def set_breaker(self, key: str, state: Literal["closed", "open"], *, now: int | None = None) -> None:
        with self.db.write() as connection:
            moment = self._now(connection, now)
            known = self._known(connection, {key}, moment).get(key)
            fails = known.fails if known and state == "open" else []
            self._become(
                connection, _Breaker(key, state, moment, None, fails, known.within if known else 60.0), moved=True
            )
