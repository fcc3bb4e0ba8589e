"""`@app.cron` and `@app.every`: what code declares, and what is refused where it is written."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dayjob import App, ConfigError, Cron, Every, Tasks


class TestDeclaring:
    def test_cron_registers_the_task_too_and_above_task_it_only_schedules(self) -> None:
        app = App("sqlite:///:memory:")

        @app.cron("0 6 * * *", tz="Europe/Berlin", name="summary")
        def daily() -> None: ...

        @app.every(300)
        @app.task(name="poll", queue="polls")
        def poll(limit: int = 5) -> None: ...

        found = app.schedules.declared()
        assert {name: one.when for name, (one, _) in found.items()} == {
            "summary": Cron("0 6 * * *", "Europe/Berlin"),
            "poll": Every(300),
        }
        assert found["poll"][0].job.queue == "polls"
        assert "poll" in app.registry

    def test_a_group_without_an_app_declares_schedules_too_and_a_task_may_have_several(self) -> None:
        tasks = Tasks(prefix="billing.", queue="billing")

        @tasks.cron("0 1 * * *", name="night", args={"kind": "full"})
        @tasks.every(timedelta(minutes=5), name="often")
        @tasks.task
        def close(kind: str = "short") -> None: ...

        found = App("sqlite:///:memory:", include=[tasks]).schedules.declared()

        assert sorted(found) == ["night", "often"]
        assert found["night"][0].job.queue == "billing"
        assert found["night"][0].job.payload != found["often"][0].job.payload

    def test_a_task_that_needs_arguments_is_refused_where_it_is_scheduled(self) -> None:
        app = App("sqlite:///:memory:")

        @app.task(name="close")
        def close(kind: str) -> None: ...

        with pytest.raises(ConfigError, match=r"kind.*args="):
            app.cron("0 1 * * *")(close)
        with pytest.raises(ConfigError, match="cron expression"):
            app.cron("0 1 * *")
        with pytest.raises(ConfigError, match="every"):
            app.every(0)

    def test_a_name_that_is_given_twice_is_refused(self) -> None:
        app = App("sqlite:///:memory:")

        @app.every(60, name="same")
        def one() -> None: ...

        @app.every(60, name="same")
        def two() -> None: ...

        with pytest.raises(ConfigError, match="'same' is taken"):
            app.schedules.declared()
