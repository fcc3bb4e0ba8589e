"""All logs hang on events: two forms, no payloads, nothing for what nobody wants to read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dayjob.errors import ConfigError
from dayjob.events import EVENTS, Bus, JobCompleted, JobFailed, JobLogged, encode
from dayjob.telemetry.logs import ConsoleForm, JSONForm, follow, subscribe
from dayjob.telemetry.relay import Relay

FAILED = JobFailed(
    id="j1", task="charge", queue="billing", attempt=2, duration=0.5, error_type="OSError", error="no net",
    traceback="Traceback …\nOSError: no net\n", delay=4.0,
)  # fmt: skip


@pytest.fixture
def log() -> Iterator[tuple[Bus, io.StringIO, logging.Handler]]:
    logger, stream = logging.getLogger("dayjob"), io.StringIO()
    handler = logging.StreamHandler(stream)
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.level, logger.propagate = [handler], logging.INFO, False
    logging.getLogger("dayjob.job").setLevel(logging.NOTSET)
    yield Bus(), stream, handler
    logger.handlers, logger.level, logger.propagate = before
    logger.setLevel(before[1])


def test_a_failure_is_one_warning_with_its_traceback(log: tuple[Bus, io.StringIO, logging.Handler]) -> None:
    bus, stream, handler = log
    handler.setFormatter(ConsoleForm())
    subscribe(bus)

    bus.emit(FAILED)

    first, *rest = stream.getvalue().splitlines()
    assert "WARNING job.failed id=j1 task=charge queue=billing attempt=2" in first
    assert "delay=4.000" in first
    assert rest == ["Traceback …", "OSError: no net"]


def test_the_json_form_is_one_object_a_line(log: tuple[Bus, io.StringIO, logging.Handler]) -> None:
    bus, stream, handler = log
    handler.setFormatter(JSONForm())
    subscribe(bus)

    bus.emit(FAILED)
    bus.emit(JobLogged(id="j1", task="charge", queue="billing", level="error", message="card declined"))

    failed, logged = map(json.loads, stream.getvalue().splitlines())
    assert (failed["event"], failed["level"], failed["error_type"], failed["delay"]) == (
        "job.failed",
        "warning",
        "OSError",
        4.0,
    )
    assert (logged["event"], logged["level"], logged["message"]) == ("job.logged", "error", "card declined")


def test_what_is_below_the_level_is_not_even_subscribed(log: tuple[Bus, io.StringIO, logging.Handler]) -> None:
    bus, stream, _ = log

    end = subscribe(bus)

    assert not bus.wants("job.completed")
    assert bus.wants("job.failed")
    end()
    assert not bus.wants("job.failed")
    assert stream.getvalue() == ""


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ConfigError, match="DAYJOB_LOG='xml'"):
        follow(Bus(), {"DAYJOB_LOG": "xml"})


def test_no_argument_and_no_result_is_ever_logged(
    shop: ModuleType, log: tuple[Bus, io.StringIO, logging.Handler]
) -> None:
    _, stream, handler = log
    logging.getLogger("dayjob").setLevel(logging.DEBUG)
    handler.setFormatter(JSONForm())
    end = subscribe(shop.app.bus)
    shop.join.enqueue("SECRET-", "ARGUMENT")

    shop.app.worker().run_until_idle()
    end()

    text = stream.getvalue()
    assert "job.completed" in text
    assert "SECRET" not in text
    assert "ARGUMENT" not in text


def test_every_event_has_a_name_of_its_own_and_encodes() -> None:
    assert all("." in name and kind.name == name for name, kind in EVENTS.items())
    event = JobCompleted(id="a", task="t", queue="q", attempt=1, duration=0.25)
    assert json.loads(encode(event)) == {
        "event": "job.completed", "at": event.at, "id": "a", "task": "t", "queue": "q", "attempt": 1, "duration": 0.25,
    }  # fmt: skip


def test_subscribing_to_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no event is named 'job\.exploded'"):
        Bus().subscribe("job.exploded", print)


def test_the_relay_is_subscribed_only_while_somebody_listens(shop: ModuleType, tmp_path: Path) -> None:
    store, bus = shop.app.store, Bus()
    relay = Relay(store, bus)
    relay.tick()
    assert not bus.wants("job.completed")

    listener = store.listen(["event"])
    relay.tick()
    bus.emit(FAILED)
    ((topic, data),) = listener.wait(5)
    assert (topic, json.loads(data)["id"]) == ("event", "j1")

    listener.close()
    relay.tick()
    assert not bus.wants("job.completed")
    relay.stop()
