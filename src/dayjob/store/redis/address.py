"""Where the server is: URLs, and the ways to a connection behind them.

    redis://user:password@host:6379/0        rediss:// with TLS; valkey:// and valkeys:// mean the same
    redis+unix:///run/redis.sock?db=0        a unix socket
    redis+sentinel://s1:26379,s2,s3/name/0   whoever Sentinel says is the primary of *name* (rediss+sentinel:// with TLS)
    redis+cluster://n1:6379,n2/              the node of a Cluster that holds the namespace (rediss+cluster:// with TLS)

Options, after a question mark:

    wait_replicas=N     a write counts once N replicas have it, else it is StoreUnavailable (default 0)
    wait_fsync=yes      a write counts once it is flushed to the disk here and, with wait_replicas, on the replicas, whatever
                        appendfsync says (Redis 7.2 and 8.0; see `health.WAITAOF_LIES`)
    wait_ms=1000        for so long a write waits for them
    evicting=allow      work although the server's maxmemory-policy evicts keys, which loses jobs
    timeout=10          seconds that an answer may take
    db=N                the database, where the path does not say it
    ssl_ca_certs= ssl_certfile= ssl_keyfile= ssl_cert_reqs= ssl_check_hostname=      as redis-py has them
    sentinel_username= sentinel_password=                                            where Sentinel asks for them
    sentinel_tls=no     Sentinel is asked in plain, although the servers speak TLS
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct
from redis.backoff import NoBackoff
from redis.connection import Connection, DefaultParser, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from dayjob.errors import ConfigError
from dayjob.store.frames import let_go
from dayjob.store.urls import without_password

PORT, SENTINEL_PORT = 6379, 26379
FORMS = ("", "unix", "sentinel", "cluster")
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
OPTIONS = frozenset(
    {
        "wait_replicas",
        "wait_fsync",
        "wait_ms",
        "evicting",
        "timeout",
        "db",
        "sentinel_username",
        "sentinel_password",
        "sentinel_tls",
        *TLS,
    }
)


class Line(Protocol):
    """A connection of redis-py, as much of it as is used here."""

    _sock: Any

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def send_command(self, *words: Any) -> None: ...

    def send_packed_command(self, command: list[bytes]) -> None: ...

    def read_response(self) -> Any: ...

    def can_read(self, timeout: float = 0) -> bool: ...


_OWN = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # not a child's, too


class Parser(DefaultParser):  # type: ignore[misc, valid-type]  # which of theirs it is, is known at run time
    """redis-py's, which ends with its connection.

    Theirs holds itself, by a method that is for a protocol not spoken here. So it would wait for the collector, which counts
    two small objects and sees nothing of the buffer: hundreds of broken lines, of 256 kB each, before it comes by. And out of
    the C library's heap, which has a part for each thread, every thread that ever connects would keep as much for itself.
    """

    def __init__(self, socket_read_size: int) -> None:
        super().__init__(0)
        self._buffer = mmap.mmap(-1, socket_read_size, **_OWN)
        self.set_pubsub_push_handler(None)


class Address(Struct, frozen=True):
    """A URL, taken apart.

    Attributes:
        url: without secrets. form: one of `FORMS`. hosts: (host, port) each; empty for a unix socket.
        path: the unix socket, or Sentinel's name of the primary.
        wait_replicas, wait_fsync, wait_ms, evicting, timeout: the options of that name.
        login: arguments for every connection; sentinel: for one to Sentinel, with TLS if sentinel_tls.
    """

    url: str
    form: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    db: int
    tls: bool
    wait_replicas: int
    wait_fsync: bool
    wait_ms: int
    evicting: bool
    timeout: float
    login: dict[str, Any]
    sentinel: dict[str, Any]
    sentinel_tls: bool


def address(url: str) -> Address:
    """*url* taken apart.

    Raises:
        ConfigError: it is none of the forms above.
    """
    parts = urlsplit(url)
    scheme, _, form = parts.scheme.lower().partition("+")
    if scheme == "unix":
        form = "unix"
    said = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in said if name not in OPTIONS]
    if form not in FORMS or parts.fragment or unknown:
        raise _unclear(url, f"unknown option {unknown[0]!r}" if unknown else f"there is no form {form!r}")
    credentials, _, named = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    path = unquote(parts.path)
    name, db = _path(url, form, path, said.get("db"))
    tls = scheme in ("rediss", "valkeys")
    login: dict[str, Any] = {"username": unquote(user) or None, "password": unquote(password) or None}
    secure: dict[str, Any] = {key: said[key] for key in TLS if key in said} if tls else {}
    if "ssl_check_hostname" in secure:
        secure["ssl_check_hostname"] = secure["ssl_check_hostname"].lower() in ("1", "true", "yes")
    sentinel_tls = tls and said.get("sentinel_tls") != "no"
    return Address(
        url=without_password(url),
        form=form,
        hosts=() if form == "unix" else _hosts(url, named, SENTINEL_PORT if form == "sentinel" else PORT),
        path=name,
        db=db,
        tls=tls,
        wait_replicas=_number(url, said, "wait_replicas", 0, int),
        wait_fsync=said.get("wait_fsync") == "yes",
        wait_ms=_number(url, said, "wait_ms", 1000, int),
        evicting=said.get("evicting") == "allow",
        timeout=_number(url, said, "timeout", 10.0, float),
        login=login | secure,
        sentinel={"username": said.get("sentinel_username"), "password": said.get("sentinel_password")}
        | (secure if sentinel_tls else {}),
        sentinel_tls=sentinel_tls,
    )


def _path(url: str, form: str, path: str, db: str | None) -> tuple[str, int]:
    """(socket or Sentinel's name, database) of a URL's path."""
    name, number = path, db or "0"
    if form != "unix":
        words = [word for word in path.split("/") if word]
        name = words.pop(0) if form == "sentinel" and words else ""
        number = words.pop(0) if words else number
        if words:
            raise _unclear(url, f"{path!r} says more than a database")
    if not number.isdecimal() or (form == "cluster" and number != "0"):
        raise _unclear(url, "the database is a number, and 0 in a Cluster")
    if form in ("unix", "sentinel") and not name.strip("/"):
        raise _unclear(url, "the path is missing")
    return name, int(number)


def _hosts(url: str, named: str, port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for one in named.split(",") if named else ["localhost"]:
        try:
            parts = urlsplit(f"//{one}")
            found.append((parts.hostname or "localhost", parts.port or port))
        except ValueError as error:
            raise _unclear(url, str(error)) from None
    return tuple(found)


def _number(url: str, said: dict[str, str], name: str, default: Any, kind: Callable[[str], Any]) -> Any:
    try:
        value = kind(said[name]) if name in said else default
    except ValueError:
        raise _unclear(url, f"{name}={said[name]!r} is no number") from None
    if not 0 <= value < 1e9:
        raise _unclear(url, f"{name}={value} is out of range")
    return value


def _unclear(url: str, why: str) -> ConfigError:
    return ConfigError(
        f"{without_password(url)!r:.200}: {why}; write redis://user:password@host:6379/0, valkey://, rediss:// for TLS, "
        "redis+unix:///path/to.sock, redis+sentinel://host1,host2/name or redis+cluster://host1,host2"
    )


def _made(kind: Any, **how: Any) -> Line:
    made: Line = kind(**how)
    return made


class Way:
    """Makes connections to the server that holds the namespace, and forgets where it is when told so."""

    def __init__(self, where: Address, key: str) -> None:
        self._where = where
        self._slot = key_slot(key.encode())
        self._primary: tuple[str, int] | None = None

    def connection(self) -> Line:
        """A connection, not connected yet. Sentinel and Cluster are asked where it leads."""
        where = self._where
        if where.form == "unix":
            return _made(UnixDomainSocketConnection, path=where.path, **self._common(where.login))
        primary = self._primary  # another thread may forget it meanwhile
        if primary is None:
            primary = {"": self._given, "sentinel": self._by_sentinel, "cluster": self._by_cluster}[where.form]()
            self._primary = primary
        return self._to(*primary)

    def forget(self) -> None:
        """The server may have moved: ask again."""
        self._primary = None

    def left(self, connection: Line) -> bool:
        """Whether *connection* leads to what is the primary no more, as far as is known."""
        primary = self._primary
        return primary is not None and primary != (getattr(connection, "host", None), getattr(connection, "port", None))

    def _to(self, host: str, port: int) -> Line:
        kind = SSLConnection if self._where.tls else Connection
        common = self._common(self._where.login)
        return _made(
            kind, host=host, port=port, db=self._where.db, socket_keepalive=True, socket_connect_timeout=5.0, **common
        )

    def _common(self, login: dict[str, Any]) -> dict[str, Any]:
        given = {} if self._where.form != "unix" else {"db": self._where.db}
        return {
            **given,
            **login,
            "socket_timeout": self._where.timeout,
            "socket_read_size": 262_144,
            "protocol": 2,
            "parser_class": Parser,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
        }

    def _given(self) -> tuple[str, int]:
        return self._where.hosts[0]

    def _by_sentinel(self) -> tuple[str, int]:
        """Ask one Sentinel after the other."""
        problem = None
        for host, port in self._where.hosts:
            kind = SSLConnection if self._where.sentinel_tls else Connection
            asked = _made(kind, host=host, port=port, socket_connect_timeout=2.0, **self._common(self._where.sentinel))
            try:
                asked.send_command("SENTINEL", "get-master-addr-by-name", self._where.path)
                found: Any = asked.read_response()
                if found:
                    return found[0].decode(), int(found[1])
            except RedisError as error:
                let_go(error)
                problem = str(error)  # the error itself would hold this frame, and this frame it
            finally:
                asked.disconnect()
        raise LookupError(f"no Sentinel of {self._where.url} knows a primary {self._where.path!r} ({problem})")

    def _by_cluster(self) -> tuple[str, int]:
        """Ask one node after the other who has the namespace's slot."""
        problem = None
        for host, port in self._where.hosts:
            asked = self._to(host, port)
            try:
                asked.send_command("CLUSTER", "SLOTS")
                ranges: Any = asked.read_response()
                for first, last, primary, *_ in ranges:
                    if first <= self._slot <= last:
                        return (primary[0].decode() if primary[0] else host), int(primary[1])
            except RedisError as error:
                let_go(error)
                problem = str(error)  # the error itself would hold this frame, and this frame it
            finally:
                asked.disconnect()
        raise LookupError(f"no node of {self._where.url} knows who has slot {self._slot} ({problem})")
