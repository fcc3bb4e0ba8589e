"""Settings, and where the store is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, structs

from dayjob.errors import ConfigError, shown
from dayjob.policies import Retention, check_int

DEFAULT_URL: Final = "sqlite:///dayjob.db"


class Settings(Struct, frozen=True, kw_only=True):
    """Numbers that hold for a whole app. Durations in seconds.

    Attributes:
        max_payload: bytes of a job's encoded arguments. max_result: bytes of an encoded return value.
        max_error: bytes of traceback text kept with an attempt.
        timeout: time limit of an attempt where the task names none; None: no limit.
        retention: how long finished jobs are kept where the task says nothing.
        lease: a worker without a beat for so long is given up (P4). beat: how often it beats.
        sweep: how often the leader looks for workers that are gone.
        grace: how long running jobs may go on after a worker was told to stop.
        concurrency: jobs at once in a worker process. poll: how often a worker looks where it cannot be told.
        blocked_after: an event loop blocked for longer is reported.
        full_timeout: how long an enqueue waits for room in a full queue whose `when_full` is `wait`.
    """

    max_payload: int = 10_000
    max_result: int = 1_000_000
    max_error: int = 20_000
    timeout: float | None = 300.0
    retention: Retention = Retention()
    lease: float = 20.0
    beat: float = 5.0
    sweep: float = 5.0
    grace: float = 25.0
    concurrency: int = 10
    poll: float = 1.0
    blocked_after: float = 1.0
    full_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, (least, most) in _INTS.items():
            check_int(name, getattr(self, name), least, most)
        for name, (least_s, most_s) in _SECONDS.items():
            _check_seconds(name, getattr(self, name), least_s, most_s)
        if self.timeout is not None:
            _check_seconds("timeout", self.timeout, 0.001, 366 * 86_400.0)
        if not isinstance(self.retention, Retention):
            raise ConfigError(f"retention must be a Retention, not {shown(self.retention)}")
        if self.beat * 2 > self.lease:
            raise ConfigError(
                f"beat={self.beat:g} must be at most half of lease={self.lease:g}: one lost beat would cost the lease"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **given: Any) -> Settings:
        """Settings from `DAYJOB_<NAME>` (seconds and counts), `DAYJOB_JOB_TIMEOUT` (`none`: no limit); *given* ones win."""
        found: dict[str, Any] = {}
        for name in (*_INTS, *_SECONDS, "timeout"):
            text = environ.get(_variable(name), "").strip()
            if text and name not in given:
                found[name] = _parse(name, text)
        return cls(**found, **given)

    def replace(self, **changes: Any) -> Settings:
        """A copy with *changes*, checked."""
        return structs.replace(self, **changes)


_INTS: dict[str, tuple[int, int]] = {
    "max_payload": (64, 1_000_000_000),
    "max_result": (64, 1_000_000_000),
    "max_error": (200, 10_000_000),
    "concurrency": (1, 100_000),
}
_SECONDS: dict[str, tuple[float, float]] = {
    "lease": (0.1, 86_400.0),
    "beat": (0.02, 43_200.0),
    "sweep": (0.02, 3_600.0),
    "grace": (0.0, 366 * 86_400.0),
    "poll": (0.001, 3_600.0),
    "blocked_after": (0.001, 86_400.0),
    "full_timeout": (0.0, 366 * 86_400.0),
}


def _variable(name: str) -> str:
    # DAYJOB_TIMEOUT is the option --timeout of single commands (how long to wait): two meanings must not meet.
    return "DAYJOB_JOB_TIMEOUT" if name == "timeout" else f"DAYJOB_{name.upper()}"


def _check_seconds(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number of seconds, not {type(value).__name__} {shown(value)}")
    if not least <= value <= most:
        raise ConfigError(f"{name}={shown(value)} must be between {least:g} and {most:,g} seconds")


def _parse(name: str, text: str) -> int | float | None:
    if name == "timeout" and text.lower() == "none":
        return None
    try:
        number = float(text) if name not in _INTS else int(text)
    except ValueError:
        raise ConfigError(f"{_variable(name)}={shown(text)} is not a number") from None
    if not math.isfinite(number):
        raise ConfigError(f"{_variable(name)}={shown(text)} is not a finite number")
    return number


def resolve_url(url: str | None, environ: Mapping[str, str], cwd: str | Path) -> str:
    """The store's URL: *url*, else `DAYJOB_URL`, else `sqlite:///dayjob.db`.

    A relative SQLite path is taken beside the nearest `pyproject.toml` at or above *cwd*, else in *cwd*, so that
    producer and worker find the same file wherever in the project they were started.
    """
    if url is not None and not isinstance(url, str):
        raise ConfigError(f"the URL of the store must be a str, not {type(url).__name__} {shown(url)}")
    url = url if url is not None else environ.get("DAYJOB_URL", "").strip() or DEFAULT_URL
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme:
        raise ConfigError(f'{shown(url)} is no URL of a store; use for example "{DEFAULT_URL}"')
    if scheme != "sqlite":
        return url
    path, question, query = rest.partition("?")
    if not path.startswith("/") or path == "/":
        raise ConfigError(
            f"{shown(url)}: write sqlite:///file.db (relative), sqlite:////folder/file.db (absolute) or sqlite:///:memory:"
        )
    path = path[1:]
    if path == ":memory:" or Path(path).is_absolute():
        return url
    return f"sqlite:///{_home(Path(cwd)) / path}{question}{query}"


def _home(cwd: Path) -> Path:
    cwd = cwd.resolve()
    for folder in (cwd, *cwd.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
    return cwd
