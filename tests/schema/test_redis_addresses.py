"""URLs: what they mean, what is refused, and that no password is ever shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dayjob.errors import ConfigError, StoreError, StoreUnavailable
from dayjob.store import open_store
from dayjob.store.redis.address import address
from tests.contract.engines import Redis
from tests.schema.redis_place import place

__all__ = ["place"]


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_plain_urls(scheme: str) -> None:
    found = address(f"{scheme}://user:p%40ss@host:7000/3?wait_replicas=1&timeout=2.5")

    assert (found.form, found.hosts, found.db, found.tls) == ("", (("host", 7000),), 3, False)
    assert (found.login["username"], found.login["password"]) == ("user", "p@ss")
    assert (found.wait_replicas, found.timeout, found.evicting) == (1, 2.5, False)
    assert "p@ss" not in found.url
    assert "p%40ss" not in found.url


@pytest.mark.parametrize(
    ("url", "form", "hosts", "path", "db"),
    [
        ("redis://", "", (("localhost", 6379),), "", 0),
        ("redis://host?db=4", "", (("host", 6379),), "", 4),
        ("redis://[::1]:7000/1", "", (("::1", 7000),), "", 1),
        ("unix:///run/redis.sock?db=2", "unix", (), "/run/redis.sock", 2),
        ("redis+unix:///run/redis.sock", "unix", (), "/run/redis.sock", 0),
        ("redis+sentinel://a,b:1/main/5", "sentinel", (("a", 26379), ("b", 1)), "main", 5),
        ("valkey+cluster://a:1,b:2", "cluster", (("a", 1), ("b", 2)), "", 0),
    ],
)
def test_other_forms(url: str, form: str, hosts: object, path: str, db: int) -> None:
    found = address(url)

    assert (found.form, found.hosts, found.path, found.db) == (form, hosts, path, db)


def test_tls_has_its_options() -> None:
    found = address("rediss://host?ssl_ca_certs=/ca.pem&ssl_check_hostname=false")

    assert found.tls
    assert (found.login["ssl_ca_certs"], found.login["ssl_check_hostname"]) == ("/ca.pem", False)
    assert address("valkeys://host").tls


@pytest.mark.parametrize(
    "url",
    [
        "redis://host/x",
        "redis://host/0/1",
        "redis://host:port",
        "redis://host?wait_replicas=two",
        "redis://host?wait_replicas=-1",
        "redis://host?evict=1",
        "redis+other://host",
        "redis+sentinel://host",
        "redis+cluster://host/1",
        "redis://host#part",
    ],
)
def test_what_is_no_url_of_ours_is_refused_with_the_forms(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://"):
        open_store(url)


def test_a_password_is_never_shown() -> None:
    for url in (
        "redis://u:secret@127.0.0.1:1/0",
        "redis://:secret@127.0.0.1:1",
        "redis://127.0.0.1:1?sentinel_password=secret",
    ):
        store = open_store(url)
        assert "secret" not in store.url
        with pytest.raises(StoreUnavailable) as caught:
            store.queues()
        assert "secret" not in str(caught.value)


def test_a_wrong_password_is_no_outage(place: Redis) -> None:
    with pytest.raises(StoreError, match="password") as caught:
        open_store(f"redis://nobody:wrong@127.0.0.1:{place.server.port}/0").queues()

    assert not isinstance(caught.value, StoreUnavailable)


def test_a_unix_socket_leads_to_the_same_jobs(place: Redis) -> None:
    place.store().write("kind", "key", b"here")
    store = open_store(f"redis+unix://{place.server.socket}?db={place.database}")
    record = store.read("kind", "key")
    store.close()

    assert record is not None
    assert record.value == b"here"


def test_no_sentinel_and_no_node_that_answers_is_an_outage() -> None:
    for url in ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main", "redis+cluster://127.0.0.1:1,127.0.0.1:2"):
        with pytest.raises(StoreUnavailable):
            open_store(url).queues()


def test_a_missing_driver_is_told_with_the_extra_that_brings_it() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from dayjob.store import open_store\n"
        "try: open_store('valkey://host')\n"
        "except ValueError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "pip install 'dayjob[redis]'" in said


def test_importing_dayjob_imports_no_driver() -> None:
    code = "import sys, dayjob; print('redis' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
