"""Valkey 9 that waits for its disk, and is killed now and then."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from redis import exceptions

from tests.chaos.places.line import Behind
from tests.servers.proxy import Proxy
from tests.servers.redis import Server, program
from tests.servers.wire.redis import RedisWire

P = "{dayjob}:"
KNOWN = re.compile(
    r"(meta|job|dyn|run|cancelling|end|ids|ready|suspect|due|expires|depth|ends|keep|gone|checkpoint|worker|info|paused"
    r"|samples|kinds|expiring|(ready|suspect|end|try|log|lease|held|left|sample|record):.+"
    r"|gating|key|keyed|blocked|lines|freed|opens|fades|contested|gate|admitted|taker|taken|breaker|fails|limits|starts"
    r"|(lane|blocked|hold|later|line|wait|token|admitted|failures|started):.+)",
    re.DOTALL,
)
EMPTY = (
    *("ready", "suspect", "due", "expires", "cancelling", "lease:", "held:", "left:", "ready:", "suspect:"),
    *(
        "key",
        "keyed",
        "lane:",
        "blocked",
        "blocked:",
        "hold:",
        "lines",
        "line:",
        "wait:",
        "admitted",
        "admitted:",
        "token:c",
    ),
)
"""Keys that are there only while jobs wait or run."""


class Valkey(Behind):
    """Version 9, `appendfsync always`."""

    name = "valkey"
    dialect = "redis"

    def __init__(self, folder: Path) -> None:
        self.server = Server(program("valkey-9"), appendfsync="always")
        self._second: Server | None = None
        super().__init__(folder, Proxy(self.server.port, RedisWire))
        self.judged_at = self.server.url()
        self.url = self.server.url(port=self.proxy.port)

    def prepare(self) -> None:
        """It has no tables."""

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def back_up(self, to: Path) -> None:
        """As any server's; again, when it crashes meanwhile."""
        until = time.monotonic() + 15.0
        while True:
            try:
                return self.server.snapshot(to)
            except (exceptions.ConnectionError, TimeoutError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)  # until the server is there again

    def restored(self, backup: Path) -> str:
        """The URL of a store made of *backup*: another server."""
        self._second = Server(program("valkey-9"), holds=backup)
        return self._second.url()

    def audit(self) -> tuple[list[str], int]:
        do = self.server.do
        keys = [key.decode() for key in do("KEYS", "*")]
        wrong = [f"a key of nobody: {key}" for key in keys if not KNOWN.fullmatch(key.removeprefix(P))]
        wrong += [f"{key} when nothing waits or runs" for key in keys if _is_to_be_empty(key.removeprefix(P))]
        ids = set(do("ZRANGE", P + "ids", 0, -1))
        for name, them in (("job", self._fields("job")), ("end", self._fields("end"))):
            wrong += [f"{id.decode()} is in {name} and not in ids" for id in them - ids]
            wrong += [f"{id.decode()} is in ids and not in {name}" for id in ids - them]
        for name in ("dyn", "run", "checkpoint"):
            wrong += [f"{id.decode()} is in {name} and has finished" for id in self._fields(name) - ids]
        wrong += [f"{id.decode()} still runs" for id in self._fields("run")]
        for key in keys:
            kind, _, id = key.removeprefix(P).partition(":")
            if kind in ("try", "log") and id.encode() not in ids:
                wrong.append(f"{key} of no job")
        listed: Counter[bytes] = Counter()
        for member in do("SMEMBERS", P + "ends"):
            listed.update(do("ZRANGE", f"{P}end:{member.decode()}", 0, -1))
        wrong += [f"{id.decode()} is in {listed[id]} lists of finished jobs" for id in ids if listed[id] != 1]
        return wrong, len(keys) + len(ids)

    def _fields(self, name: str) -> set[Any]:
        return set(self.server.do("HKEYS", P + name)) - {b""}

    def close(self) -> None:
        super().close()
        self.server.close()
        if self._second is not None:
            self._second.close()


def _is_to_be_empty(key: str) -> bool:
    return any(key == name or (name.endswith(":") and key.startswith(name)) for name in EMPTY)
