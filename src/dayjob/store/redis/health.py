"""What `dayjob doctor` sees of a server, and what a worker asks before it works: how durable is what is stored here?

Facts, and warnings that each say what to do. A server that is told to evict keys loses jobs: no worker works there unless
the URL says `evicting=allow`.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from dayjob.clock import SECOND, wall
from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store.records import Durability, Health
from dayjob.store.redis.server import MOST, SCHEMA, Server

SKEW = 2.0
FULL = 0.9
OLDEST = (6, 2)

HOLES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], str], ...] = (
    ("redis", (6, 2), (6, 2, 20), "CVE-2025-49844 (code execution by Lua)"),
    ("redis", (7, 0), (7, 2, 11), "CVE-2025-49844 (code execution by Lua)"),
    ("redis", (7, 4), (7, 4, 6), "CVE-2025-49844 (code execution by Lua)"),
    ("redis", (8, 0), (8, 0, 4), "CVE-2025-49844 (code execution by Lua)"),
    ("redis", (8, 2), (8, 2, 2), "CVE-2025-49844 (code execution by Lua)"),
    ("valkey", (7, 2), (7, 2, 11), "CVE-2025-49844 (code execution by Lua)"),
    ("valkey", (8, 0), (8, 0, 6), "CVE-2025-49844 (code execution by Lua)"),
    ("valkey", (8, 1), (8, 1, 4), "CVE-2025-49844 (code execution by Lua)"),
)
"""Kind, first version of a line, the version that mended it, what it is."""

WAITAOF_SINCE = {"redis": (7, 2), "valkey": (7, 2)}
WAITAOF_LIES: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (
    ("redis", (7, 4), (8, 0)),
    ("valkey", (8, 0), (99,)),
)
"""Kind, first version, the version that mended it: under `everysec` WAITAOF says that a write is on the disk before it is
(redis/redis#13793). No mended Valkey is known; seen with 9.1.2."""


class Keeping:
    """What a server promises to keep.

    Attributes:
        kind: "redis" or "valkey". version: its number. aof: the append-only file is on. fsync: when it is flushed, None when
            this user may not ask. policy: what it does when its memory is full. replicas: how many follow it.
    """

    def __init__(self, server: Server) -> None:
        info = _info(server)
        self.kind = "valkey" if "valkey_version" in info else "redis"
        self.version = info.get("valkey_version") or info.get("redis_version", "0")
        self.role = info.get("role", "?")
        self.aof = info.get("aof_enabled") == "1"
        self.aof_failed = info.get("aof_last_write_status", "ok") != "ok"
        self.fsync = _setting(server, "appendfsync")
        self.policy = info.get("maxmemory_policy", "?")
        self.replicas = int(info.get("connected_slaves", 0))
        self.memory, self.most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
        self.clients, self.most_clients = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))

    @property
    def engine(self) -> str:
        return f"{self.kind.capitalize()} {self.version}"

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".") if part.isdecimal())

    def holes(self) -> list[tuple[str, str]]:
        """What is known to be wrong with this version, and the version in which it is mended."""
        return [
            (what, ".".join(map(str, mended)))
            for kind, first, mended, what in HOLES
            if kind == self.kind and first <= self.number < mended
        ]

    @property
    def flush_doubt(self) -> str:
        """Why `wait_fsync=yes` does not do here what it says; empty when it does."""
        if self.number < WAITAOF_SINCE[self.kind]:
            return f"{self.engine} has no WAITAOF, and writes with wait_fsync=yes are refused"
        lies = any(kind == self.kind and since <= self.number < until for kind, since, until in WAITAOF_LIES)
        if lies and self.fsync != "always":
            return f"WAITAOF of {self.engine} does not wait for the disk unless appendfsync is always"
        return ""

    @property
    def evicts(self) -> bool:
        return self.policy not in ("noeviction", "?")

    @property
    def loss(self) -> str:
        """What a crash of the server costs."""
        if not self.aof:
            return "all since the last snapshot"
        return {"always": "nothing", "everysec": "up to 2 s of writes", "no": "what the system had not written"}.get(
            self.fsync or "", "unknown: this user may not read appendfsync"
        )


def _info(server: Server) -> dict[str, str]:
    text = server.command("INFO").decode("utf-8", "replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _setting(server: Server, name: str) -> str | None:
    try:
        found = server.command("CONFIG", "GET", name)
    except StoreError:
        return None
    return found[1].decode() if len(found) > 1 else None


def require_no_eviction(server: Server) -> None:
    """Refuse to work where keys are evicted.

    Raises:
        StoreError: the policy evicts, and the URL does not allow that. A worker goes on asking: it may be mended.
    """
    if server.address.evicting:
        return
    try:
        policy = _info(server).get("maxmemory_policy", "?")
    except StoreUnavailable:
        raise
    except StoreError:
        return  # this user may not ask
    if policy not in ("noeviction", "?"):
        raise StoreError(
            f"{server.url} has maxmemory-policy {policy}: it deletes jobs when its memory is full. Set it to noeviction "
            "(CONFIG SET maxmemory-policy noeviction), or say evicting=allow in the URL"
        )


class Examination:
    """One look at a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._facts: dict[str, str] = {}
        self._warnings: list[str] = []

    def health(self) -> Health:
        """All of it.

        Raises:
            StoreError: the server cannot be reached, or refuses us.
        """
        found = Keeping(self._server)
        schema = int(self._server.command("HGET", self._server.meta, "schema") or 0)
        self._connection()
        self._version(found)
        self._keeping(found)
        self._memory(found)
        if schema == SCHEMA:
            self._ours()
        self._ears()
        return Health(found.engine, schema, SCHEMA, self._facts, self._warnings)

    def durability(self) -> Durability:
        """What may be lost, alone.

        Raises:
            StoreError: the server cannot be reached, or refuses us.
        """
        found = Keeping(self._server)
        self._version(found)
        for (
            hole,
            mended,
        ) in found.holes():  # doctor has them as a fact: packagers mend old versions and keep their number
            self._warn(f"{found.engine} has {hole}, unless its packager has mended it", f"{mended} has not")
        self._keeping(found)
        self._eviction(found)
        return Durability(found.engine, self._facts["a crash costs"], self._warnings)

    def _warn(self, what: str, remedy: str) -> None:
        self._warnings.append(f"{what}: {remedy}")

    def _connection(self) -> None:
        where = self._server.address
        local = where.form == "unix" or all(host in ("localhost", "127.0.0.1", "::1") for host, _ in where.hosts)
        asked = wall()
        clock = self._server.now()
        took = wall() - asked
        skew = (asked + took / 2 - clock) / SECOND
        form = {"": "direct", "unix": "a unix socket", "sentinel": "by Sentinel", "cluster": "in a Cluster"}[where.form]
        self._facts["connection"] = (
            f"{form}, {'TLS' if where.tls else 'no TLS'}, at most {MOST} in this process and one to listen"
        )
        self._facts["round trip"] = f"{took / 1000:.1f} ms"
        self._facts["clock"] = f"this process's wall clock is {skew:+.3f} s from the server's"
        if abs(skew) - took / SECOND > SKEW:
            self._warn(
                f"this process's wall clock is {skew:+.1f} s from the server's", "let both keep time (chrony, ntpd)"
            )
        if where.login.get("ssl_cert_reqs") == "none":
            self._warn("anybody may pose as this server", "give ssl_ca_certs= instead of ssl_cert_reqs=none")
        if not where.tls and not local:
            self._warn("the line to the server is not encrypted", "write rediss:// or valkeys://")

    def _version(self, found: Keeping) -> None:
        if found.number[:2] < OLDEST:
            self._warn(f"{found.engine} is too old", "dayjob needs Redis 6.2 or newer, or Valkey 8")
        holes = [f"{hole}, mended in {mended}, and by some packagers before" for hole, mended in found.holes()]
        self._facts["holes"] = "; ".join(holes) or "none known"

    def _keeping(self, found: Keeping) -> None:
        self._facts["append-only file"] = f"on, appendfsync {found.fsync or 'unknown'}" if found.aof else "off"
        where = self._server.address
        doubt = found.flush_doubt if where.wait_fsync else ""
        waits = found.aof and where.wait_fsync and not doubt
        self._facts["a crash costs"] = "nothing: each write waits for the disk" if waits else found.loss
        if doubt:
            self._warn(doubt, "CONFIG SET appendfsync always, and leave wait_fsync=yes out")
        wanted = where.wait_replicas
        self._facts["replicas"] = f"{found.replicas} connected, {wanted} waited for"
        if not found.aof:
            self._warn("there is no append-only file", "CONFIG SET appendonly yes, and in its configuration file")
        elif found.fsync == "no":
            self._warn("the append-only file is not flushed", "CONFIG SET appendfsync everysec, or always")
        if found.aof_failed:
            self._warn("the last write to the append-only file failed", "make room on its disk, and see its log")
        if found.replicas < wanted:
            self._warn(
                f"{wanted} replicas are waited for and {found.replicas} follow", "writes will not be acknowledged"
            )
        if found.role not in ("master", "?"):
            self._warn("this server is a replica and can only be read", "give the URL of the primary")

    def _memory(self, found: Keeping) -> None:
        most = f" of {found.most:,}" if found.most else ", without a limit"
        self._facts["memory"] = f"{found.memory:,} bytes{most}, {found.policy}"
        self._eviction(found)
        if found.most and found.memory > FULL * found.most:
            self._warn(f"memory is {found.memory / found.most:.0%} full", "raise maxmemory, or keep jobs for less long")
        if found.most_clients and found.clients > FULL * found.most_clients:
            self._warn(f"{found.clients} of {found.most_clients} connections are in use", "raise maxclients")

    def _eviction(self, found: Keeping) -> None:
        if found.evicts:
            self._warn(
                f"maxmemory-policy is {found.policy}, which deletes jobs when memory is full",
                "CONFIG SET maxmemory-policy noeviction; workers refuse to work unless the URL says evicting=allow",
            )

    def _ours(self) -> None:
        """Whether what belongs together is together: somebody may have deleted keys."""
        jobs, listed, places = self._server.call("listed")
        self._facts["jobs"] = f"{jobs:,}"
        if jobs != listed:
            self._warn(
                f"{jobs:,} jobs are stored and {listed:,} are listed",
                "somebody has deleted or evicted keys of this namespace; see that nothing else uses this database",
            )
        if jobs > places:
            self._warn(
                f"{jobs - places:,} jobs neither wait nor run nor have ended",
                "somebody has deleted or evicted keys of this namespace; `dayjob jobs retry` with their ids, which are shown "
                "as scheduled for a time that is over, makes them available",
            )

    def _ears(self) -> None:
        """Whether a signal comes back."""
        channel, asked = f"{self._server.channels}doctor:{uuid4().hex}", time.monotonic()
        try:
            connection = self._server.connect()
            try:
                connection.send_command("SUBSCRIBE", channel)
                connection.read_response()
                self._server.command("PUBLISH", channel, "?")
                heard: Any = connection.read_response()
            finally:
                connection.disconnect()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a warning here
            self._facts["wake-ups"] = "by polling, once a second"
            self._warn(
                f"a signal did not come back ({error})", "allow SUBSCRIBE and PUBLISH; workers look once a second"
            )
            return
        assert heard[0] == b"message"
        self._facts["wake-ups"] = f"publish and subscribe, {(time.monotonic() - asked) * 1000:.1f} ms there and back"
