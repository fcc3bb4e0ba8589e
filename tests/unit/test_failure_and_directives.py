"""Errors become bounded text whatever the exception does; directives and settings check their arguments."""

from __future__ import annotations

import math
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dayjob.codec import decode_failure, encode_failure
from dayjob.config import Settings, resolve_url
from dayjob.directives import CancelJob, RetryAfter, Snooze, Unrecoverable
from dayjob.errors import ConfigError
from dayjob.policies import Retention


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Mean(Exception):
    @property
    def __notes__(self) -> Any:
        raise RuntimeError("no notes")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_keeps_type_message_traceback_and_cause() -> None:
    def failing() -> None:
        try:
            {}["missing"]  # type: ignore[call-overload]  # it raises
        except KeyError as error:
            raise ValueError("no such order") from error

    try:
        failing()
    except ValueError as error:
        error.add_note("order 7")
        failure = decode_failure(encode_failure(error, 20_000))

    assert (failure.type, failure.message) == ("ValueError", "no such order")
    assert all(part in failure.traceback for part in ("in failing", "KeyError: 'missing'", "direct cause", "order 7"))


def test_the_type_of_an_error_is_its_dotted_name() -> None:
    assert decode_failure(encode_failure(Mute(), 1_000)).type == f"{__name__}.Mute"


@pytest.mark.parametrize(
    "error",
    [Mute(), Mean("x"), ExceptionGroup("g", [Mute(), ValueError()]), KeyboardInterrupt()],
    ids=lambda e: type(e).__name__,
)
def test_an_error_that_cannot_be_shown_is_still_stored(error: BaseException) -> None:
    failure = decode_failure(encode_failure(raised(error), 20_000))

    assert type(error).__name__ in failure.type
    assert failure.traceback


@pytest.mark.parametrize("text", ["x" * 10_000_000, "ä" * 1_000_000, "\ud800\0" * 5_000, "\x1b[31m" * 9_999])
@pytest.mark.parametrize("limit", [200, 20_000])
def test_an_error_is_bounded_and_storable(text: str, limit: int) -> None:
    failure = decode_failure(encode_failure(raised(ValueError(text)), limit))

    assert len(failure.traceback.encode()) <= limit
    assert len(failure.message.encode()) <= 2_000
    assert "\0" not in failure.message + failure.traceback


def test_a_long_traceback_keeps_its_end() -> None:
    def down(n: int) -> None:
        if n:
            down(n - 1)
        raise ValueError("at the bottom")

    try:
        down(300)
    except ValueError as error:
        failure = decode_failure(encode_failure(error, 300))

    assert failure.traceback.startswith("…")
    assert failure.traceback.endswith("ValueError: at the bottom\n")


def test_an_error_that_holds_itself_ends() -> None:
    error = ValueError("round")
    error.__cause__ = error

    assert decode_failure(encode_failure(error, 1_000)).message == "round"


def test_stored_nonsense_is_shown_not_raised() -> None:
    assert decode_failure(b"\xff{").type == "unreadable"


# -- directives ------------------------------------------------------------------------------------------------------


def test_retry_after_takes_seconds_timedeltas_and_moments() -> None:
    now = 1_000_000_000_000_000
    moment = datetime.fromtimestamp(now / 1e6, UTC)

    assert RetryAfter(30).delay(now) == 30.0
    assert RetryAfter(timedelta(minutes=1)).delay(now) == 60.0
    assert RetryAfter(moment + timedelta(seconds=5)).delay(now) == 5.0
    assert RetryAfter(moment - timedelta(seconds=5)).delay(now) == 0.0


@pytest.mark.parametrize("directive", [RetryAfter, Snooze])
@pytest.mark.parametrize("when", [-1, math.nan, math.inf, "5", None, True, 1e12], ids=str)
def test_a_directive_checks_its_time(directive: Any, when: Any) -> None:
    with pytest.raises(ConfigError, match=directive.__name__):
        directive(when)


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(ConfigError, match="time zone"):
        RetryAfter(datetime.min)  # noqa: DTZ901  # on purpose


@pytest.mark.parametrize(
    "directive",
    [RetryAfter(5), RetryAfter(datetime(2030, 1, 1, tzinfo=UTC)), Snooze(3), CancelJob("why"), Unrecoverable()],
)
def test_directives_survive_copying_between_processes(directive: Any) -> None:
    copied = pickle.loads(pickle.dumps(directive))

    assert (type(copied), vars(copied), str(copied)) == (type(directive), vars(directive), str(directive))


def test_reasons_are_text() -> None:
    assert (CancelJob("stale").reason, Unrecoverable().reason, str(Unrecoverable())) == ("stale", "", "Unrecoverable")
    with pytest.raises(ConfigError, match="CancelJob"):
        CancelJob(7)  # type: ignore[arg-type]


# -- settings --------------------------------------------------------------------------------------------------------


def test_settings_are_as_the_documents_say() -> None:
    settings = Settings()

    assert (settings.max_payload, settings.max_result, settings.timeout) == (10_000, 1_000_000, 300.0)
    assert (settings.lease, settings.beat, settings.sweep, settings.grace) == (20.0, 5.0, 5.0, 25.0)
    assert settings.retention == Retention()


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"max_payload": 0}, "max_payload"),
        ({"max_payload": 1e4}, "max_payload"),
        ({"max_payload": True}, "max_payload"),
        ({"concurrency": 0}, "concurrency"),
        ({"lease": math.nan}, "lease"),
        ({"lease": -1}, "lease"),
        ({"lease": "20"}, "lease"),
        ({"beat": 15}, "beat"),
        ({"timeout": 0}, "timeout"),
        ({"grace": math.inf}, "grace"),
        ({"retention": 5}, "retention"),
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_named(options: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ConfigError, match=culprit):
        Settings(**options)
    with pytest.raises(ConfigError, match=culprit):
        Settings().replace(**options)


def test_settings_come_from_the_environment_and_what_is_given_wins() -> None:
    environ = {
        "DAYJOB_MAX_PAYLOAD": "5000",
        "DAYJOB_JOB_TIMEOUT": "none",
        "DAYJOB_LEASE": " 12.5 ",
        "DAYJOB_URL": "x",
        "HOME": "/",
    }

    assert Settings.from_env(environ, lease=30.0) == Settings(max_payload=5_000, timeout=None, lease=30.0)


@pytest.mark.parametrize("text", ["ten", "nan", "inf", "0x10", "1e400"])
def test_nonsense_in_the_environment_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="DAYJOB_LEASE"):
        Settings.from_env({"DAYJOB_LEASE": text})


def test_a_relative_database_lies_beside_pyproject_toml(tmp_path: Path) -> None:
    below = tmp_path / "src" / "shop"
    below.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")

    assert resolve_url(None, {}, below) == f"sqlite:///{tmp_path}/dayjob.db"
    assert resolve_url("sqlite:///jobs/a.db?mode=x", {}, below) == f"sqlite:///{tmp_path}/jobs/a.db?mode=x"


@pytest.mark.parametrize(
    "url", ["sqlite:////var/jobs.db", "sqlite:///:memory:", "postgresql://user@host/db", "redis://h"]
)
def test_any_other_url_is_left_alone(url: str, tmp_path: Path) -> None:
    assert resolve_url(url, {"DAYJOB_URL": "sqlite:///x.db"}, tmp_path) == url
    assert resolve_url(None, {"DAYJOB_URL": url}, tmp_path) == url


@pytest.mark.parametrize("url", ["jobs.db", "", "sqlite://jobs.db", "sqlite:///", "://x", 7, b"sqlite:///x"], ids=repr)
def test_what_is_no_url_says_how_one_looks(url: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///|must be a str"):
        resolve_url(url, {}, tmp_path)
