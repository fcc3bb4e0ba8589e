"""An app whose tasks run in child processes, which import it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from typing import Any

import psycopg

from dayjob import App, JobContext, Retry, Settings

SETTINGS = Settings(lease=2.5, beat=0.2, sweep=0.2, poll=0.2)
app = App("sqlite:///:memory:", settings=SETTINGS)
once = Retry(max_attempts=1)


def connect() -> Any:
    if app.url.startswith("sqlite:"):
        return sqlite3.connect(app.url.removeprefix("sqlite:///"), timeout=10.0)
    return psycopg.connect(app.url)


def _end(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ZeroDivisionError("too late")
    if how == "hang":
        while True:
            time.sleep(0.01)


@app.task(executor="process", retry=once, timeout=1.0)
def pay(ctx: JobContext[Any], how: str) -> str:
    """On a connection of its own."""
    with closing(connect()) as connection:
        ctx.log.info("paying")
        connection.execute("INSERT INTO effect VALUES ('paid')")
        ctx.complete_in(connection, "paid")
        if how.startswith("before "):
            _end(how.removeprefix("before "))
        if how != "forget":
            connection.commit()
        _end(how)
    return "ignored"


@app.task(executor="process", retry=once, timeout=1.0)
def pay_here(ctx: JobContext[Any], how: str) -> str:
    """On dayjob's own connection."""
    ctx.log.info("paying")
    with ctx.transaction() as tx:
        tx.execute("INSERT INTO effect VALUES ('paid')")
        tx.result = "paid"
        if how.startswith("before "):
            _end(how.removeprefix("before "))
    _end(how)
    return "ignored"
