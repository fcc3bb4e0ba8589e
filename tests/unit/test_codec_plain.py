"""Values without a hint (meta, checkpoints), and what a stored traceback leaves out."""

from __future__ import annotations

import pytest

from dayjob import App, JobContext
from dayjob.codec import encode_plain
from dayjob.errors import ConfigError


@pytest.mark.parametrize("value", [float("nan"), float("inf"), (1, 2), {1: 2}, {"x"}, object(), "\ud800"])
def test_a_plain_value_that_would_not_read_back_equal_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint\['rows'\]\[0\]"):
        encode_plain("checkpoint", {"rows": [value]}, 1000)


def test_a_plain_value_over_its_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"limit is 100|over the limit of 100"):
        encode_plain("meta", ["x" * 200], 100)


def test_a_checkpoint_reads_back_as_saved_and_a_traceback_begins_in_the_task() -> None:
    app = App("sqlite:///:memory:")
    seen = []

    @app.task(name="walk", retry=1)
    def walk(ctx: JobContext[None]) -> None:
        ctx.save_checkpoint({"rows": [1, None, "ä"]})
        seen.append(ctx.checkpoint)
        raise ValueError("here")

    with app:
        job = walk.enqueue()
        app.worker().run_until_idle()
        traceback = job.refresh().attempts[0].traceback

    assert seen == [{"rows": [1, None, "ä"]}]
    assert traceback is not None
    assert traceback.splitlines()[1].endswith("in walk")
