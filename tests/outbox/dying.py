"""A relay that kills itself at a named step. `python -m tests.outbox.dying URL STORE STEP MOMENT`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from dayjob import App
from dayjob.outbox.desk import Desk
from dayjob.outbox.relay import OutboxRelay
from dayjob.outbox.source import Source


def deadly(function: Callable[..., Any], moment: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if moment == "after":
            function(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def main(url: str, store: str, step: str, moment: str) -> None:
    app = App(store)
    desk = Desk(Source(url), "dayjob_outbox", f"dying at {step}", 10.0)
    with desk.source.transaction() as run:
        run("UPDATE dayjob_outbox_relay SET held_until = 0")
    owner: Any = app.store if step == "enqueue" else desk
    setattr(owner, step, deadly(getattr(owner, step), moment))
    OutboxRelay(desk, app.store, app.bus).tick()


if __name__ == "__main__":
    main(*sys.argv[1:])
