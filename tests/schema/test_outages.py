"""A server that is away, and a caller who gives up, leave nothing behind.

An error that is in a circle keeps all that its frames name: connections, and their buffers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg
import pytest
from redis.exceptions import RedisError

import dayjob.store
from dayjob import App
from dayjob.errors import StoreUnavailable
from dayjob.store.records import Filter
from tests.garbage import none_left
from tests.servers.host import free_port

AWAY = ("redis://{}", "rediss://{}", "redis+sentinel://{}/main", "redis+cluster://{}", "postgresql://{}/jobs")


async def aenqueue(app: App) -> None:
    with suppress(StoreUnavailable):  # what leaves `asyncio.run` is held by its own frames
        await app.aenqueue("note")


ERRORS = (StoreUnavailable, psycopg.Error, RedisError, ConnectionRefusedError)
CALLS: dict[str, Callable[[App], object]] = {
    "look": lambda app: app.store.count(Filter()),
    "listen": lambda app: app.store.listen(["work"]),
    "enqueue": lambda app: app.enqueue("note"),
    "aenqueue": lambda app: asyncio.run(aenqueue(app)),
}


@pytest.mark.parametrize("form", AWAY, ids=lambda form: form.partition(":")[0])
@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_is_away_leaves_nothing_to_the_garbage_collector(form: str, call: str) -> None:
    if form.partition("+")[0].partition(":")[0] not in dayjob.store.ENGINES:
        pytest.skip("this release has no such engine")
    with closing(App(form.format(f"127.0.0.1:{free_port()}"))) as app:
        app._combiner.patience = 0.0
        with none_left(*ERRORS), suppress(StoreUnavailable):
            CALLS[call](app)
