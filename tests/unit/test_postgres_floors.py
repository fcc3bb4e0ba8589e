"""Floors: what a process may conclude from the answers of claims. No server, no time."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg")

from dayjob.store.postgres import floors
from dayjob.store.postgres.floors import Answer, Floors, Question

Levels = list[tuple[str, int, int]]
SECOND = 1_000_000


class Claims:
    """Claims of one process against a pretended server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(floors.time, "monotonic", lambda: self.now)
        self.floors = Floors()
        self.moment = SECOND
        self.incarnation = "first"

    def ask(self) -> Question:
        return self.floors.ask()

    def answer(
        self, asked: Question, top: int, levels: Levels | None = None, writers: str = "", more: bool = False
    ) -> None:
        self.moment += 1
        reached = [("q", 0, top)] if levels is None else levels
        told = (set(writers), self.incarnation) if asked.check else (None, None)
        self.floors.learn(asked, Answer(self.moment, top, f"snapshot at {self.moment}", reached, more, *told))

    def claim(self, top: int, levels: Levels | None = None, writers: str = "", more: bool = False) -> None:
        """One claim, a second after the last: it checks."""
        self.now += 1.0
        self.answer(self.ask(), top, levels, writers, more)

    @property
    def floor(self) -> int | None:
        asked = self.floors.ask()._replace(check=False)
        return dict(zip(asked.levels, asked.floors, strict=True)).get(("q", 0), 0)


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Claims:
    return Claims(monkeypatch)


def test_nothing_is_known_at_first(claims: Claims) -> None:
    asked = claims.ask()

    assert (asked.levels, asked.due, asked.seen, asked.check) == ([], 0, None, True)


def test_a_floor_rises_to_what_was_given_away_before_the_last_two_checks(claims: Claims) -> None:
    risen = []
    for top in (10, 20, 30, 40):
        claims.claim(top)
        risen.append(claims.floor)

    assert risen == [0, 0, 10, 20]


def test_a_floor_rises_no_further_than_a_claim_has_come(claims: Claims) -> None:
    for top in (100, 200, 300):
        claims.claim(top, [("q", 0, 7)])

    assert claims.floor == 7


def test_it_waits_for_who_wrote_at_the_check_and_not_for_who_came_later(claims: Claims) -> None:
    claims.claim(10, writers="ab")
    for top in (20, 30, 40):
        claims.claim(top, writers="bcd")
    waiting = claims.floor
    claims.claim(50, writers="cd")
    claims.claim(60, writers="e")

    assert waiting == 0
    assert claims.floor == 10


def test_a_floor_never_falls(claims: Claims) -> None:
    for top in (10, 20, 30):
        claims.claim(top)
    claims.claim(40, [("q", 0, 3)])

    assert claims.floor == 10


def test_a_level_that_nobody_speaks_of_for_an_hour_is_forgotten(claims: Claims) -> None:
    both = [("q", 0, 10), ("gone", 0, 10)]
    for top in (10, 20, 30):
        claims.claim(top, both)
    before = claims.floors.ask().levels
    claims.now += floors.REMEMBERED
    claims.claim(40)
    claims.now += floors.REMEMBERED
    claims.claim(50)

    assert before == [("q", 0), ("gone", 0)]
    assert claims.floors.ask().levels == [("q", 0)]


def test_there_is_one_check_a_second(claims: Claims) -> None:
    claims.claim(10)
    soon = claims.ask().check
    claims.now += 1.0

    assert not soon
    assert claims.ask().check
    assert not claims.ask().check  # another thread's claim, meanwhile


def test_who_cannot_check_leaves_it_to_the_next_claim(claims: Claims) -> None:
    staging = claims.floors.ask(check=False).check

    assert not staging
    assert claims.ask().check


def test_a_claim_asked_before_a_decision_does_not_profit_from_it(claims: Claims) -> None:
    claims.claim(10)
    early = claims.ask()
    claims.claim(20)  # 10 is decided from here on
    claims.answer(early, 20)
    before = claims.floor
    claims.claim(20)

    assert before == 0
    assert claims.floor == 10


def test_due_times_rise_like_places_and_not_while_more_is_due(claims: Claims) -> None:
    first = claims.moment + 1
    for top in (10, 20, 30):
        claims.claim(top)
    risen = claims.ask().due
    claims.claim(40, more=True)
    fallen = claims.ask().due
    claims.claim(50)

    assert risen == first
    assert fallen == 0
    assert claims.ask().due > risen


def test_another_incarnation_of_the_server_voids_everything(claims: Claims) -> None:
    for top in (10, 20, 30):
        claims.claim(top)
    claims.incarnation = "second"
    under_way = claims.ask()
    claims.claim(40)
    forgotten = claims.ask()
    claims.answer(under_way, 40)

    assert (forgotten.levels, forgotten.due, forgotten.seen) == ([], 0, None)
    assert claims.floor == 0


def test_a_check_says_of_which_incarnation_its_floors_speak(claims: Claims) -> None:
    at_first = claims.floors.ask().incarnation
    claims.claim(10)
    known = claims.floors.ask().incarnation
    claims.incarnation = "second"
    claims.claim(20)

    assert (at_first, known, claims.floors.ask().incarnation) == (None, "first", "second")


def test_places_that_went_back_void_everything(claims: Claims) -> None:
    for top in (1_000, 2_000, 3_000):
        claims.claim(top)
    before = claims.floor
    claims.claim(12)  # a backup, with the very same incarnation

    assert (before, claims.floor) == (1_000, 0)


def test_a_clock_that_goes_back_voids_everything_but_answers_in_another_order_do_not(claims: Claims) -> None:
    for top in (10, 20, 30):
        claims.claim(top)
    claims.moment -= 100
    claims.claim(40)
    kept, seen = claims.floor, claims.ask().seen
    claims.moment -= 2 * SECOND
    claims.claim(50)

    assert kept == 20
    assert seen == f"snapshot at {SECOND + 3}"  # the newest, not the last that came
    assert claims.floor == 0
