"""Who is watched over minutes (`horizon`): dayjob, and peers on PostgreSQL. Each stores jobs from this process and runs
them in one of its own until that is killed."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import dayjob
from benchmarks.children import Child
from benchmarks.jobs import build
from benchmarks.peers.graphile import Graphile, add
from benchmarks.peers.pgqueuer import PgQueuer, open_
from benchmarks.workload import TASK, arguments, payload


class Side(ABC):
    """One of them.

    Attributes:
        claim: a pattern (ILIKE) of the statement that fetches jobs.
    """

    claim: str

    def missing(self) -> str | None:
        """Why it cannot run here; None when it can."""
        return None

    @abstractmethod
    def version(self) -> str:
        """Which one it is."""

    @abstractmethod
    def prepare(self, url: str) -> None:
        """Create its tables."""

    @abstractmethod
    def fill_future(self, url: str, jobs: int) -> None:
        """Store so many jobs for next year, by whatever means are quick."""

    @abstractmethod
    def worker(self, url: str, failing: float) -> Child:
        """Its worker, which answers a word with how many jobs are `done`."""

    @abstractmethod
    def producer(self, url: str, failing: float) -> AbstractContextManager[Callable[[int], None]]:
        """A function that stores so many jobs in one call, within a context."""


class Dayjob(Side):
    """dayjob with its default settings."""

    claim = "SELECT%FROM dayjob.claim(%"

    def version(self) -> str:
        return dayjob.__version__

    def prepare(self, url: str) -> None:
        from dayjob.store import open_store

        store = open_store(url)
        store.migrate()
        store.close()

    def fill_future(self, url: str, jobs: int) -> None:
        import psycopg

        built = build(url)
        with built.app:
            model = built.tick.using(delay=365 * 86_400).enqueue(**arguments(0))
        with psycopg.connect(url, autocommit=True) as connection:
            names = [row[0] for row in connection.execute(_COLUMNS, prepare=False).fetchall()]
            copied = ", ".join(names)
            for low in range(1, jobs, 500_000):
                given = (model.id, low, min(jobs - 1, low + 499_999))
                connection.execute(_COPY.format(names=copied), given)  # type: ignore[arg-type]
            connection.execute("VACUUM (ANALYZE) dayjob.job")

    def worker(self, url: str, failing: float) -> Child:
        return Child("benchmarks.child", "serve", env={"DAYJOB_URL": url})

    @contextmanager
    def producer(self, url: str, failing: float) -> Iterator[Callable[[int], None]]:
        built, numbers, fails = build(url), itertools.count(), every(failing)

        def store(jobs: int) -> None:
            given = [arguments(next(numbers)) for _ in range(jobs)]
            tasks = [built.flaky if fails and each["order_id"] % fails == 0 else built.tick for each in given]
            built.app.enqueue_many([task.job(**each) for task, each in zip(tasks, given, strict=True)])

        with built.app:
            yield store


class GraphileSide(Side):
    """graphile-worker as in the scenarios."""

    claim = "%skip locked%"

    def __init__(self) -> None:
        self._peer = Graphile()

    def missing(self) -> str | None:
        return self._peer.missing()

    def version(self) -> str:
        return self._peer.version()

    def prepare(self, url: str) -> None:
        self._peer.create(url)

    def fill_future(self, url: str, jobs: int) -> None:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            add(connection, [0])
            connection.execute("UPDATE graphile_worker._private_jobs SET run_at = now() + interval '1 year'")
            connection.execute(_GRAPHILE_COPY, (jobs - 1,))
            connection.execute("VACUUM (ANALYZE) graphile_worker._private_jobs")

    def worker(self, url: str, failing: float) -> Child:
        return self._peer.worker(url, None, 24, every(failing))

    @contextmanager
    def producer(self, url: str, failing: float) -> Iterator[Callable[[int], None]]:
        import psycopg

        numbers = itertools.count()
        with psycopg.connect(url, autocommit=True) as connection:
            yield lambda jobs: add(connection, [next(numbers) for _ in range(jobs)])


class PgQueuerSide(Side):
    """pgqueuer, batches of 100."""

    claim = "%skip locked%"

    def __init__(self) -> None:
        self._peer = PgQueuer()

    def missing(self) -> str | None:
        return self._peer.missing()

    def version(self) -> str:
        return self._peer.version()

    def prepare(self, url: str) -> None:
        asyncio.run(self._peer.prepare(url))

    def fill_future(self, url: str, jobs: int) -> None:
        raise NotImplementedError("jobs of next year are stored for dayjob and graphile-worker")

    def worker(self, url: str, failing: float) -> Child:
        environment = {
            "BENCH_URL": url,
            "BENCH_JOBS": "0",
            "BENCH_SETTING": "100",
            "BENCH_FAILING": str(every(failing)),
        }
        return Child("benchmarks.peers.worker", self._peer.name, env=environment)

    @contextmanager
    def producer(self, url: str, failing: float) -> Iterator[Callable[[int], None]]:
        numbers = itertools.count()
        with asyncio.Runner() as runner:
            queries, connection = runner.run(open_(url))

            def store(jobs: int) -> None:
                content = [payload(next(numbers)) for _ in range(jobs)]
                runner.run(queries.enqueue([TASK] * jobs, content, [0] * jobs))

            yield store
            runner.run(connection.close())


def every(share: float) -> int:
    """0.1 is every tenth; 0: none."""
    return round(1 / share) if share else 0


_COLUMNS = """
SELECT quote_ident(attname) FROM pg_attribute
WHERE attrelid = 'dayjob.job'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'entry', 'place', 'run_at')
ORDER BY attnum
"""
_COPY = """
INSERT INTO dayjob.job (id, entry, place, run_at, {names})
SELECT gen_random_uuid(), nextval('dayjob.entry'), 0, m.run_at + i, {names}
FROM (SELECT * FROM dayjob.job WHERE id = %s) AS m, generate_series(%s::bigint, %s::bigint) AS i
"""
_GRAPHILE_COPY = """
INSERT INTO graphile_worker._private_jobs (task_id, payload, run_at)
SELECT task_id, payload, run_at FROM graphile_worker._private_jobs, generate_series(1, %s)
"""
SIDES: dict[str, Callable[[], Side]] = {"dayjob": Dayjob, "graphile": GraphileSide, "pgqueuer": PgQueuerSide}
