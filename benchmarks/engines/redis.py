"""Bare redis-py, as fast as a loop of this shape goes: one connection, one script per batch of 500, hiredis, Valkey 9 with its
append-only file on, flushed every second. The server is one of this process's own, on the same cores as its clients.

It keeps what dayjob keeps of a job: one value, found by its id; a place in a sorted set, from which it is claimed in the
order of priority and place; who runs it; and at its end when and how it ended, in a list of its own. It runs nothing,
encodes nothing but the fields, checks nothing, and holds no lease.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from redis import Redis as Client
from tests.servers.redis import Server, redis

from benchmarks.children import Child, listen, say
from benchmarks.measure import Stopwatch
from benchmarks.workload import BATCH, QUEUE, TASK, batches, ids, payload

_INSERT = """
local jobs, ready, at = {}, {}, redis.call('INCRBY', KEYS[4], #ARGV / 2) - #ARGV / 2
for i = 1, #ARGV, 2 do
  ready[i], ready[i + 1] = at + (i + 1) / 2, ARGV[i]
end
redis.call('HSET', KEYS[1], unpack(ARGV))
redis.call('ZADD', KEYS[2], unpack(ready))
"""
_MOVE = """
local held, ends, done = cmsgpack.unpack(ARGV[3]), {}, {}
if #held > 0 then
  for i, id in ipairs(held) do
    ends[2 * i - 1], ends[2 * i] = id, ARGV[2]
    done[2 * i - 1], done[2 * i] = ARGV[1], id
  end
  redis.call('HDEL', KEYS[5], unpack(held))
  redis.call('HSET', KEYS[3], unpack(ends))
  redis.call('ZADD', KEYS[4], unpack(done))
end
local picked = redis.call('ZPOPMIN', KEYS[2], ARGV[4])
local taken, runs = {}, {}
for i = 1, #picked, 2 do
  taken[(i + 1) / 2] = picked[i]
  runs[i], runs[i + 1] = picked[i], picked[i + 1] .. ARGV[2]
end
if #taken == 0 then return {} end
redis.call('HSET', KEYS[5], unpack(runs))
return {taken, redis.call('HMGET', KEYS[1], unpack(taken))}
"""
_WORKER = b" 0193a5f0-0000-7000-8000-000000000000 worker-1@host.example.org 4711 default"
"""More than 64 bytes: a hash of up to 512 shorter values is kept as a list, which a batch of 500 searches 500 times."""
_KEYS = ("job", "ready", "end", "done", "run")


class Redis:
    """Valkey 9 from its wheel. A store is a database of its own."""

    name = "redis"

    @property
    def server(self) -> Server:
        """The server, started on first use, ended with this process. It does not rewrite its file: that would be at the cost
        of whoever is just measured."""
        server = redis("valkey-9")
        server.do("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
        return server

    def url(self, folder: Path) -> str:
        return self.server.url(self.server.database())

    def versions(self) -> dict[str, str]:
        return {"Valkey": self.server.version().split("v=")[1].split()[0], "redis-py": metadata.version("redis")}

    def insert(self, folder: Path, jobs: int) -> float:
        with self._open() as client:
            rows = _rows(jobs)
            with Stopwatch() as watch:
                _fill(client, rows)
            _expect(client.hlen("job"), jobs)
        return jobs / watch.seconds

    def insert_best(self, folder: Path, jobs: int) -> float:
        """The plain form is the fastest here."""
        return self.insert(folder, jobs)

    def drain(self, folder: Path, jobs: int) -> float:
        with self._open() as client:
            _fill(client, _rows(jobs))
            move = client.register_script(_MOVE)
            with Stopwatch() as watch:
                _drain(move)
            _expect(client.zcard("done"), jobs)
        return jobs / watch.seconds

    def singles(self, folder: Path) -> Callable[[int], float]:
        client = self._open()
        insert = client.register_script(_INSERT)

        def store(jobs: int) -> float:
            rows = _rows(jobs)
            with Stopwatch() as watch:
                for row in rows:
                    insert(keys=["job", "ready", "end", "entry"], args=row)
            return watch.seconds

        return store

    def latency(self, folder: Path, samples: int, steadily: Callable[[int, Callable[[], object]], None]) -> list[float]:
        """Milliseconds from just before a row is stored, by a script that also publishes, until another process, which has
        subscribed, has claimed it by a script. *steadily* calls so often what it is given."""
        database = self.server.database()
        with (
            Client(port=self.server.port, db=database) as client,
            Child("benchmarks.engines.redis", str(self.server.port), str(database)) as ear,
        ):
            ear.hear()
            ear.tell(samples=samples)
            insert = client.register_script(f"{_INSERT}redis.call('PUBLISH', 'work', '')")

            def send() -> None:
                sent = str(time.monotonic_ns())
                insert(
                    keys=["job", "ready", "end", "entry"], args=[next(iter(ids(1))), f"{sent} {payload(0).decode()}"]
                )

            steadily(samples, send)
            return [nanoseconds / 1e6 for nanoseconds in ear.hear()["late"]]

    def clear(self) -> None:
        """Nothing that is left in a database costs the next figure something, but for the memory."""

    def commands(self, url: str, seconds: float) -> float:
        """Commands per second that clients send to the database of *url*, for so many seconds from now; what a script
        calls is not counted."""
        database = int(url.rsplit("/", 1)[1])
        end = f"{url} {time.monotonic_ns()}"
        with Client(port=self.server.port) as client, client.monitor() as monitor:
            time.sleep(seconds)
            self.server.do("ECHO", end)
            seen = 0
            while (told := monitor.next_command())["command"] != f"ECHO {end}":
                seen += told["db"] == database and told["client_type"] != "lua"
        return seen / seconds

    def _open(self) -> Client:
        return Client(port=self.server.port, db=self.server.database())


def _rows(jobs: int) -> list[tuple[str, bytes]]:
    now = time.time_ns() // 1000
    return [
        (id, json.dumps([TASK, QUEUE, 0, 0, 5, now, now, None, None, None, payload(number).decode()]).encode())
        for number, id in enumerate(ids(jobs))
    ]


def _fill(client: Client, rows: list[tuple[str, bytes]]) -> None:
    insert = client.register_script(_INSERT)
    for batch in batches(len(rows)):
        insert(
            keys=["job", "ready", "end", "entry"], args=[word for row in rows[batch.start : batch.stop] for word in row]
        )


def _drain(move: Callable[..., Any]) -> None:
    """Settle the previous batch and claim the next in one script, as dayjob's turn does."""
    held: list[bytes] = []
    while True:
        now = time.time_ns() // 1000
        told = move(keys=_KEYS, args=[now, _WORKER, msgspec.msgpack.encode([id.decode() for id in held]), BATCH])
        if not told:
            return
        held = told[0]


def _expect(found: int, jobs: int) -> None:
    if found != jobs:
        raise RuntimeError(f"the bare engine has {found} rows, not {jobs}")


def main() -> None:
    """The other process of `latency`: says how late each of so many rows came, in nanoseconds."""
    port, database = map(int, sys.argv[1:])
    with Client(port=port, db=database) as client, Client(port=port, db=database).pubsub() as ear:
        move = client.register_script(_MOVE)
        ear.subscribe("work")
        say(ready=True)
        samples = int(listen()["samples"])
        late: list[int] = []
        while len(late) < samples:
            ear.get_message(timeout=20.0)
            told = move(keys=_KEYS, args=[0, _WORKER, msgspec.msgpack.encode([]), BATCH])
            here = time.monotonic_ns()
            late += [here - int(row.split()[0]) for row in told[1]] if told else []
        say(late=late)


if __name__ == "__main__":
    main()
