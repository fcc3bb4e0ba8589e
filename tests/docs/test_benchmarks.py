"""The harness behind the published figures: how it ranks, compares and reports."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psycopg
import pytest
from benchmarks import engines, measure, report, runner
from benchmarks.engines.redis import Redis
from benchmarks.horizon import Course, Window, snapshot
from benchmarks.model import Answer, Bench, Figure, Floor, Round, Scenario, figure, of_best, ratio
from benchmarks.workload import ids, payload
from redis import Redis as Client


def _scenario(rounds: list[Round]) -> Scenario:
    left = iter(rounds)

    def measure_one(bench: Bench) -> Round:
        found = next(left)
        if "boom" in found:
            raise RuntimeError("it broke")
        return found

    floors = (Floor("a of b", ratio("a", "b"), least=2), Floor("a of c", ratio("a", "c"), most=1))
    return Scenario(
        "s", "a question", (Figure("a", "A", "/s"), Figure("c", "C", "ms", "low")), floors, measure_one, len(rounds)
    )


def _answer(rounds: list[Round], tmp_path: Path) -> Answer:
    return runner.run(_scenario(rounds), engines.engine("sqlite"), rounds=None, scale=1.0, root=tmp_path)


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]

    assert [measure.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert measure.percentile([7.0], 0.01) == 7.0


def test_a_ratio_is_formed_within_a_round_and_its_median_counts(tmp_path: Path) -> None:
    answer = _answer([{"a": 10.0, "b": 1.0}, {"a": 10.0, "b": 5.0}, {"a": 3.0, "b": 1.0}], tmp_path)
    first, second = answer.scenario.floors

    assert runner.median(answer, first.value) == 3.0
    assert runner.verdict(answer, first) is True
    assert runner.verdict(answer, second) is None  # nobody measured c: a peer that is not installed


def test_the_best_of_several_is_the_best_of_those_that_are_there() -> None:
    value = of_best("ours", ["one", "two", "three"])

    assert value({"ours": 12.0, "one": 2.0, "three": 4.0}) == 3.0
    with pytest.raises(KeyError):
        value({"ours": 12.0})


def test_what_clients_send_to_a_database_is_counted_and_not_what_their_scripts_call(tmp_path: Path) -> None:
    engine = engines.engine("redis")
    assert isinstance(engine, Redis)
    url, other = engine.url(tmp_path), engine.url(tmp_path)
    script = "redis.call('SET', KEYS[1], 1) return redis.call('GET', KEYS[1])"
    with Client.from_url(url) as client, Client.from_url(other) as stranger:
        assert [client.ping(), stranger.ping()] == [True, True]  # what a connection begins with is over

        def send() -> None:
            client.eval(script, 1, "key")
            stranger.ping()

        timer = threading.Timer(0.2, send)
        timer.start()
        rate = engine.commands(url, 0.5)
        timer.join()

    assert rate == 2.0  # one in half a second


def test_a_round_that_fails_is_told_and_what_was_measured_before_is_kept(tmp_path: Path) -> None:
    answer = _answer([{"a": 1.0, "b": 1.0}, {"boom": 1.0}], tmp_path)
    told = report.document([answer], {})["scenarios"][0]

    assert told["problem"] == "RuntimeError: it broke"
    assert told["floors"][0]["reached"] is False
    assert "NOT REACHED" in report.table(told)
    assert list(tmp_path.iterdir()) == []


def test_figures_keep_their_unit() -> None:
    assert [
        report.shown(value, unit) for value, unit in ((1234.5, "/s"), (1.239, "/s"), (0.3512, "x"), (2.5, "ms"))
    ] == [
        "1,234/s",
        "1.24/s",
        "0.35 x",
        "2.50 ms",
    ]
    assert report.shown(None, "x") == "not measured"


def test_the_workload_is_what_the_figures_say() -> None:
    made = list(ids(1_000))

    assert 110 <= len(payload(1)) <= 130
    assert made == sorted(set(made))
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", id) for id in made)


@pytest.mark.parametrize("what", ["insert", "insert_best", "drain"])
@pytest.mark.parametrize("name", engines.names())
def test_the_bare_engine_does_all_of_its_work(name: str, what: str, tmp_path: Path) -> None:
    engine = engines.engine(name)
    rate = getattr(engine, what)(tmp_path, 1_500)
    engine.clear()

    assert rate > 0


def test_a_floor_of_another_engine_is_not_asked_for(tmp_path: Path) -> None:
    asked = Scenario(
        "s",
        "a question",
        (Figure("a", "A", "/s"),),
        (Floor("here", figure("a"), least=1, engine="sqlite"), Floor("there", figure("a"), least=9, engine="postgres")),
        lambda bench: {"a": 2.0},
        1,
    )
    told = report.document([runner.run(asked, engines.engine("sqlite"), rounds=None, scale=1.0, root=tmp_path)], {})

    assert [floor["title"] for floor in told["scenarios"][0]["floors"]] == ["here"]


def test_a_peer_that_is_not_there_is_told_with_its_reason(tmp_path: Path) -> None:
    def skip(bench: Bench) -> Round:
        bench.skipped["a peer"] = "it needs a newer Python"
        return {}

    answer = runner.run(
        Scenario("s", "a question", (), (), skip, 1), engines.engine("sqlite"), rounds=None, scale=1.0, root=tmp_path
    )
    told = report.document([answer], {})["scenarios"][0]

    assert "a peer: it needs a newer Python" in report.table(told)


def test_every_floor_can_be_computed_from_the_figures_of_its_scenario() -> None:
    from benchmarks.scenarios import ALL

    for scenario in ALL.values():
        figures = {each.name: 1.0 for each in scenario.figures}

        assert all(floor.value(figures) == 1.0 for floor in scenario.floors), scenario.name
        assert figure(scenario.figures[0].name)(figures) == 1.0


def test_a_course_is_judged_by_its_first_and_its_last_tenth() -> None:
    windows = [
        Window(at=float(at), claim=claim, claims=30.0, jobs=1_000.0, waiting=at)
        for at, claim in enumerate([1.0, 3.0, *[9.0] * 16, 4.0, 5.0])
    ]
    course = Course("dayjob", "0", 1_000, 10.0, 0.0, 0, True, windows)

    found = course.summary()

    assert (found["claim_first"], found["claim_last"], found["growth"]) == (2.0, 4.5, 2.25)
    assert (found["waiting_first"], found["waiting_last"], found["waiting_most"]) == (0.5, 18.5, 19)


def test_an_open_snapshot_keeps_the_dead_rows(tmp_path: Path) -> None:
    engine = engines.engine("postgres")
    url = engine.url(tmp_path)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE rows AS SELECT generate_series(1, 100) AS n")
        with snapshot(url):
            connection.execute("DELETE FROM rows")
            connection.execute("VACUUM rows")
            kept = connection.execute("SELECT pg_relation_size('rows')").fetchone()
        connection.execute("VACUUM rows")
        after = connection.execute("SELECT pg_relation_size('rows')").fetchone()
    engine.clear()

    assert kept == (8192,)
    assert after == (0,)
