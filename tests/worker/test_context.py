"""The context: detached in a direct call, checked at its boundary, refusing what later releases bring."""

from __future__ import annotations

import logging
import math
from types import ModuleType
from typing import Any

import pytest

from dayjob import ConfigError, JobContext, NotSupported, current_job


def test_a_direct_call_gets_a_detached_context_that_records_nothing(
    shop: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.app.task(name="test.detached")
    def look(ctx: JobContext[Any], number: int) -> tuple[str, int, bool, bool, Any]:
        ctx.progress(1, 2)
        ctx.save_checkpoint({"a": number})
        ctx.log.warning("number %d", number)
        ctx.raise_if_cancelled()
        return ctx.task, ctx.attempt, ctx.last_attempt, ctx.cancelled, ctx.checkpoint

    assert look(7) == ("test.detached", 1, True, False, None)
    assert "number 7" in caplog.text
    assert current_job() is None


@pytest.mark.parametrize("done", [math.nan, math.inf, -math.inf, True, "1", None, 10**400])
def test_progress_that_is_no_number_is_refused(done: Any) -> None:
    context = JobContext.detached("task")

    with pytest.raises((ConfigError, OverflowError), match="done"):
        context.progress(done)


@pytest.mark.parametrize("value", [object(), {1, object()}, lambda: None])
def test_a_checkpoint_without_a_json_form_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="checkpoint"):
        JobContext.detached("task").save_checkpoint(value)


@pytest.mark.parametrize(
    "call",
    [
        lambda ctx: ctx.step("a", len, "b"),
        lambda ctx: ctx.spawn(None),
        lambda ctx: ctx.sleep(1),
        lambda ctx: ctx.wait_signal("go"),
        lambda ctx: ctx.on_rollback(len),
    ],
)
def test_what_is_not_part_of_this_release_is_refused_by_name(call: Any) -> None:
    with pytest.raises(NotSupported, match=r"ctx\.\w+ is not supported"):
        call(JobContext.detached("task"))


async def test_astep_is_refused_as_well() -> None:
    with pytest.raises(NotSupported, match=r"ctx\.astep"):
        await JobContext.detached("task").astep("a", len, "b")


def test_lines_are_stored_whatever_is_in_them(shop: ModuleType) -> None:
    @shop.app.task(name="test.odd")
    def talk(ctx: JobContext[Any]) -> None:
        ctx.log.info("a lone \udcff surrogate")
        ctx.log.info("%d is no number", "seven")
        ctx.log.info("100% of it")
        ctx.log.critical("end")
        ctx.progress(0.5, None, "note with \udcff")

    job = talk.enqueue()
    shop.app.worker().run_until_idle()

    lines = [(line.level, line.message) for line in job.logs()]
    assert job.refresh().state == "completed"
    assert lines == [
        ("info", "a lone \\udcff surrogate"),
        ("info", "%d is no number ('seven',)"),
        ("info", "100% of it"),
        ("critical", "end"),
    ]


def test_meta_state_and_attempts_are_there(shop: ModuleType) -> None:
    @shop.app.task(name="test.meta")
    async def look(ctx: JobContext[Any]) -> dict[str, Any]:
        return {
            "meta": ctx.meta,
            "id": ctx.id,
            "queue": ctx.queue,
            "attempt": ctx.attempt,
            "last": ctx.last_attempt,
            "nominal": ctx.scheduled_for,
            "app": ctx.app is shop.app,
        }

    job = look.using(meta={"by": "web"}, queue="mail").enqueue()
    shop.app.worker().run_until_idle()

    assert job.result(timeout=1) == {
        "meta": {"by": "web"},
        "id": job.id,
        "queue": "mail",
        "attempt": 1,
        "last": False,
        "nominal": None,
        "app": True,
    }


def test_detached_logging_reaches_the_logger_with_its_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dayjob.job"):
        JobContext.detached("task").log.debug("quietly")
        try:
            raise ValueError("odd")
        except ValueError:
            JobContext.detached("task").log.exception("100%")

    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.ERROR]
    assert "ValueError: odd" in caplog.records[1].getMessage()
