"""How long a dashboard waits for what it shows when five million finished jobs are kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.model import Bench, Figure, Floor, Round, Scenario
from dayjob.states import State
from dayjob.store import open_store
from dayjob.store.contract import Store
from dayjob.store.records import Filter

ROWS = 5_000_000
TIMES = 20
DAYS = 3
_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_PART = """
INSERT INTO dayjob.history (
    id, entry, created_at, run_at, started_at, finished_at, keep_until, goes, priority, max_attempts, attempt, crashes,
    round, recorded, state, queue, task, payload, result, worker
)
SELECT
    (lpad(to_hex((start + i * step) / 1000), 12, '0') || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 4, 15))::uuid,
    i, start + i * step, start + i * step, start + i * step + 2000, start + i * step + 9000,
    CASE WHEN i %% 100 > 0 THEN start + i * step + 9000 + 86400000000::bigint * (1 + i %% %(days)s) END,
    CASE WHEN i %% 100 = 0 THEN 'infinity' ELSE (current_date + (1 + i %% %(days)s)::integer) END,
    0, 5, 1, 0, 0, false,
    CASE WHEN i %% 100 = 0 THEN 'dead' WHEN i %% 100 = 1 THEN 'cancelled' ELSE 'completed' END,
    'queue' || i %% 7, CASE WHEN i %% 1000 = 7 THEN 'shop.rare' ELSE 'shop.task' || i %% 20 END,
    %(payload)s, 'null', 'bench@1'
FROM (SELECT %(start)s::bigint AS start, %(step)s::bigint AS step) AS t, generate_series(%(low)s::bigint, %(high)s::bigint) AS i
"""
_TOTALS = "INSERT INTO dayjob.total (goes, queue, state, jobs) SELECT goes, queue, state, count(*) FROM dayjob.history GROUP BY 1, 2, 3"


def measure(bench: Bench) -> Round:
    """The median of twenty of each, after one that warms up."""
    url = bench.store("jobs")
    store = open_store(url)
    try:
        middle = filled(url, bench.jobs(ROWS))
        return {name: _median(lambda ask=ask: ask(store, middle)) for name, (_, ask) in _QUESTIONS.items()}  # type: ignore[misc]
    finally:
        store.close()


def filled(url: str, rows: int) -> str:
    """Write *rows* finished jobs of the last twelve hours past dayjob, over several days on which they go, one in a
    hundred dead; the id of one in the middle."""
    import psycopg

    from benchmarks.workload import payload

    now = time.time_ns() // 1000
    step = 12 * _HOUR // rows
    given = {"days": DAYS, "payload": payload(1), "start": now - 12 * _HOUR, "step": step}
    with psycopg.connect(url, autocommit=True) as connection:
        for day in range(1, DAYS + 1):
            connection.execute("SELECT dayjob.add_day(current_date + %s::integer)", (day,))
        for low in range(1, rows + 1, 500_000):
            connection.execute(_PART, {**given, "low": low, "high": min(rows, low + 499_999)})
        connection.execute(_TOTALS)
        connection.execute("VACUUM (ANALYZE) dayjob.history")
        connection.execute("CHECKPOINT")
        found = connection.execute(
            "SELECT id::text FROM dayjob.history WHERE created_at <= %s ORDER BY id DESC LIMIT 1", (now - 6 * _HOUR,)
        )
        row = found.fetchone()
    assert row is not None
    return str(row[0])


def _median(ask: Callable[[], object]) -> float:
    """Milliseconds."""
    taken = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken[1:])


_QUESTIONS: dict[str, tuple[str, Callable[[Store, str], object]]] = {
    "count_all": ("count everything", lambda store, _: store.count(Filter())),
    "count_dead": ("count the dead", lambda store, _: store.count(Filter(states=(State.DEAD,)))),
    "count_queue": (
        "count a queue's dead",
        lambda store, _: store.count(Filter(states=(State.DEAD,), queue="queue3")),
    ),
    "queues": ("how the queues stand", lambda store, _: store.queues()),
    "minutes": ("the last hour by the minute", lambda store, _: store.history(time.time_ns() // 1000 - _HOUR)),
    "find": ("the newest page", lambda store, _: store.find(Filter())),
    "find_middle": ("a page in the middle", lambda store, middle: store.find(Filter(), after=middle)),
    "find_dead": ("the newest dead", lambda store, _: store.find(Filter(states=(State.DEAD,)))),
    "find_queue": ("the newest of a queue", lambda store, _: store.find(Filter(queue="queue3"))),
    "find_rare": ("the newest of a task that one in 1,000 is", lambda store, _: store.find(Filter(task="shop.rare"))),
    "get": ("one job", lambda store, middle: store.get(middle)),
}

SCENARIO = Scenario(
    "reads",
    "what a dashboard asks, with 5,000,000 finished jobs kept",
    tuple(Figure(name, title, "ms", "low") for name, (title, _) in _QUESTIONS.items()),
    (Floor("the slowest of them", lambda figures: max(figures[name] for name in _QUESTIONS), "ms", most=50),),
    measure,
    rounds=1,
    engines=("postgres",),
)
