"""The counts of a Retention hold wherever it was given: settings, queue, task."""

from __future__ import annotations

from dayjob import App, Retention, Settings
from dayjob.services.duties import bounds
from dayjob.states import State
from dayjob.store.records import WorkerInfo


def test_the_counts_of_tasks_and_queues_reach_the_pruner() -> None:
    app = App("sqlite:///:memory:", settings=Settings(retention=Retention(completed=(None, 6))))
    app.queue("mail", defaults={"retention": Retention(completed=(None, 4))})

    @app.task(name="often", retention=Retention(completed=(3600, 2)))
    async def often() -> None: ...

    @app.task(name="plain")
    async def plain() -> None: ...

    with app:
        app.enqueue_many([plain.job() for _ in range(9)])
        app.enqueue_many([often.job() for _ in range(5)])
        app.enqueue_many([plain.using(queue="mail").job() for _ in range(7)])
        app.worker().run_until_idle()
        term = app.store.beat(WorkerInfo("w", "w", "here", 1), []).term
        assert term is not None
        app.store.prune(term, bounds(app.registry))
        left = (
            app.jobs.count(task="often"),
            app.jobs.count(task="plain", queue="mail"),
            app.jobs.count(state=State.COMPLETED),
        )

    # The default queue keeps the newest 6: 1 plain, 5 often; of those the task keeps 2. `mail` keeps its own 4.
    assert left == (2, 4, 7)
