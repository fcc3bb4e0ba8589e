"""Servers that speak TLS: real certificates, right ones and wrong ones. Of the tests' servers Debian's knows TLS."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dayjob.errors import StoreError, StoreUnavailable
from dayjob.store import open_store
from dayjob.store.records import NewRow, Want
from tests.contract.ids import numbered
from tests.schema.test_redis_failover import until
from tests.schema.test_redis_health import ANN
from tests.servers.host import free_port
from tests.servers.needed import needed
from tests.servers.redis import Sentinel, Server, program

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Somebody who signs certificates, in a folder that a server's user may read. All of it lives as long as a test run.

    Attributes:
        folder: has `<name>.pem` and `<name>.key` of each; `ca` is the authority itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # CPython 3.13 asks for it
        named = ("-days", "2", "-subj", "/CN=the tests")
        self._openssl("req", "-x509", *KEY, "-keyout", "ca.key", "-out", "ca.pem", *named, *usage)
        self.sign("server", "IP:127.0.0.1")
        self.sign("stranger", "DNS:stranger.example")
        for file in folder.iterdir():
            file.chmod(0o644)

    def sign(self, name: str, host: str) -> None:
        (self.folder / "host").write_text(f"subjectAltName={host}\nauthorityKeyIdentifier=keyid\n")
        self._openssl("req", *KEY, "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}")
        authority = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        self._openssl(
            "x509", "-req", "-in", "request", *authority, "-days", "2", "-extfile", "host", "-out", f"{name}.pem"
        )

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    def settings(self, port: int, name: str = "server") -> dict[str, str]:
        """A server's configuration."""
        return {
            "tls_port": str(port),
            "tls_cert_file": f"{self.folder}/{name}.pem",
            "tls_key_file": f"{self.folder}/{name}.key",
            "tls_ca_cert_file": f"{self.folder}/ca.pem",
            "tls_auth_clients": "no",
        }

    def trusting(self) -> str:
        """What a URL says to know this authority."""
        return f"ssl_ca_certs={self.folder}/ca.pem"

    def identity(self, name: str, key: str = "") -> str:
        """What a URL says to show a certificate."""
        return f"ssl_certfile={self.folder}/{name}.pem&ssl_keyfile={self.folder}/{key or name}.key"


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory(prefix="dayjob-tls-") as folder:
        yield Authority(Path(folder))


@pytest.fixture(scope="module")
def port() -> int:
    """Where the server speaks TLS."""
    return free_port()


@pytest.fixture(scope="module")
def server(authority: Authority, port: int) -> Iterator[Server]:
    with closing(Server(needed(lambda: program("redis-7.0")), **authority.settings(port))) as server:
        yield server


def refusal(url: str) -> str:
    """What is said of *url*, and that it is nothing to wait for."""
    with closing(open_store(url)) as store, pytest.raises(StoreError) as told:
        store.migrate()
    assert not isinstance(told.value, StoreUnavailable)
    return str(told.value)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_jobs_and_signals_go_through_tls(server: Server, authority: Authority, port: int, scheme: str) -> None:
    url = f"{server.url(server.database(), scheme=scheme, port=port)}?{authority.trusting()}"
    with closing(open_store(url)) as store, closing(store.listen(["control"])) as ear:
        store.migrate()
        store.beat(ANN, [])
        rows = [NewRow(numbered(n), "shop.charge", "default", bytes(50_000)) for n in range(20)]  # many records of TLS
        store.enqueue(rows)
        store.notify("control", b"pause")

        assert ear.wait(5.0) == [("control", b"pause")]
        assert [job.payload for job in store.turn(ANN.id, 1, (), [Want(None, 20)]).claimed] == [bytes(50_000)] * 20
        assert store.check().facts["connection"].startswith("direct, TLS")
        assert store.check().warnings == []


def test_a_certificate_that_nobody_we_know_has_signed_is_refused(server: Server, port: int) -> None:
    told = refusal(server.url(scheme="rediss", port=port))

    assert "certificate is not to be trusted" in told
    assert "ssl_ca_certs=" in told


def test_a_certificate_of_another_host_is_refused_unless_the_url_says_otherwise(
    server: Server, authority: Authority, port: int
) -> None:
    files = {name.replace("_", "-"): value for name, value in authority.settings(port, "stranger").items()}
    mine = {name.replace("_", "-"): value for name, value in authority.settings(port).items()}
    url = f"{server.url(scheme='rediss', port=port)}?{authority.trusting()}"
    words = ("tls-cert-file", "tls-key-file")
    server.do("CONFIG", "SET", *(word for name in words for word in (name, files[name])))
    try:
        assert "not valid for '127.0.0.1'" in refusal(url)
        with closing(open_store(f"{url}&ssl_check_hostname=no")) as store:
            assert store.now() > 0
    finally:
        server.do("CONFIG", "SET", *(word for name in words for word in (name, mine[name])))


def test_who_checks_no_certificate_is_warned(server: Server, port: int) -> None:
    with closing(open_store(f"{server.url(scheme='rediss', port=port)}?ssl_cert_reqs=none")) as store:
        store.migrate()

        assert any("anybody may pose as this server" in warning for warning in store.check().warnings)


def test_a_server_that_wants_our_certificate_gets_it(server: Server, authority: Authority, port: int) -> None:
    url = f"{server.url(scheme='rediss', port=port)}?{authority.trusting()}"
    with server.set(tls_auth_clients="yes"):
        with closing(open_store(f"{url}&{authority.identity('stranger')}")) as store:
            assert store.now() > 0
        with closing(open_store(url)) as store, pytest.raises(StoreError, match="ssl_certfile=") as told:
            store.now()

    assert "of ours" in str(told.value)


def test_files_that_do_not_fit_are_named(server: Server, authority: Authority, port: int) -> None:
    url = server.url(scheme="rediss", port=port)

    assert "cannot be read" in refusal(f"{url}?ssl_ca_certs=/nowhere/ca.pem")
    assert "ssl_keyfile=" in refusal(f"{url}?{authority.trusting()}&{authority.identity('stranger', key='server')}")


def test_a_port_without_tls_is_told(server: Server) -> None:
    with (
        closing(open_store(f"{server.url(scheme='rediss')}?timeout=0.5")) as store,
        pytest.raises(StoreUnavailable, match="perhaps it does not speak TLS"),
    ):
        store.now()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("plain", [False, True], ids=["all", "all but Sentinel"])
def test_sentinel_and_those_it_watches_speak_tls(authority: Authority, plain: bool) -> None:
    kind, ports = needed(lambda: program("redis-7.0")), [free_port() for _ in range(3)]
    with ExitStack() as stack:
        primary = stack.enter_context(closing(Server(kind, tls_replication="yes", **authority.settings(ports[0]))))
        follows = f"127.0.0.1 {ports[0]}"
        stack.enter_context(
            closing(Server(kind, tls_replication="yes", replicaof=follows, **authority.settings(ports[1])))
        )
        sentinel = stack.enter_context(
            closing(Sentinel(primary, watched=ports[0], tls_replication="yes", **authority.settings(ports[2])))
        )
        url = sentinel.url(scheme="rediss", port=None if plain else ports[2])
        store = stack.enter_context(
            closing(open_store(f"{url}?{authority.trusting()}{'&sentinel_tls=no' if plain else ''}"))
        )
        until(store.migrate)

        assert store.check().facts["connection"].startswith("by Sentinel, TLS")
        primary.kill()
        until(store.migrate)
