"""The one place that writes log records: a subscriber to the events.

Two forms, chosen by `DAYJOB_LOG` (`console`, `json`). Never arguments or results: events carry none. Jobs that start
and complete are DEBUG and cost nothing unless that level is on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from dayjob.errors import ConfigError
from dayjob.events import EVENTS, Bus, Event

LEVELS: dict[str, int] = {
    "job.enqueued": logging.DEBUG,
    "job.started": logging.DEBUG,
    "job.progress": logging.DEBUG,
    "job.completed": logging.DEBUG,
    "job.retried": logging.DEBUG,  # job.failed has said it
    "job.released": logging.DEBUG,
    "job.snoozed": logging.DEBUG,
    "job.logged": logging.INFO,  # or as the job says
    "job.cancelled": logging.INFO,
    "job.failed": logging.WARNING,
    "job.parked": logging.WARNING,
    "job.stalled": logging.WARNING,
    "job.interrupted": logging.WARNING,
    "job.abandoned": logging.ERROR,
    "job.dead": logging.ERROR,
    "job.raised_late": logging.ERROR,
    "lease.lost": logging.WARNING,
    "worker.lost": logging.ERROR,
    "worker.gone": logging.WARNING,
    "process.died": logging.ERROR,
    "loop.blocked": logging.WARNING,
    "store.unavailable": logging.ERROR,
    "store.endangered": logging.WARNING,
    "service.failed": logging.ERROR,
    "hook.failed": logging.ERROR,
    "writes.trimmed": logging.WARNING,
    "outbox.relayed": logging.DEBUG,
    "outbox.set_aside": logging.ERROR,
    "schedule.ticked": logging.DEBUG,
    "schedule.missed": logging.WARNING,
    "schedule.orphaned": logging.WARNING,
    "schedule.failed": logging.ERROR,
}
"""Everything else is INFO."""

_LONG = ("traceback", "stack")
_LOGGER = "dayjob"


def follow(bus: Bus, environ: Mapping[str, str], *, level: int | None = None) -> Callable[[], None]:
    """Write what *bus* says to stderr, as `DAYJOB_LOG` and `DAYJOB_LOG_LEVEL` want it; returns what ends that.

    Where the program has set up logging itself, only the records are written, and its handlers decide.
    """
    form = environ.get("DAYJOB_LOG", "console")
    if form not in ("console", "json"):
        raise ConfigError(f"DAYJOB_LOG={form!r:.40} must be console or json")
    logger = logging.getLogger(_LOGGER)
    if not logging.getLogger().handlers and not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JSONForm() if form == "json" else ConsoleForm())
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(level if level is not None else _level(environ))
    return subscribe(bus)


def _level(environ: Mapping[str, str]) -> int:
    name = environ.get("DAYJOB_LOG_LEVEL", "INFO").upper()
    found = logging.getLevelNamesMapping().get(name)
    if found is None:
        raise ConfigError(f"DAYJOB_LOG_LEVEL={name!r:.40} must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return found


def subscribe(bus: Bus) -> Callable[[], None]:
    """Turn the events of *bus* into log records, each to the logger `dayjob.<kind>`; returns what ends that.

    Only to those events is subscribed whose level is on now: the others cost nothing.
    """
    ends = []
    for name in EVENTS:
        logger = logging.getLogger(f"{_LOGGER}.{name.partition('.')[0]}")
        if name == "job.logged" or logger.isEnabledFor(LEVELS.get(name, logging.INFO)):
            ends.append(bus.subscribe(name, _writer(logger)))

    def end() -> None:
        for one in ends:
            one()

    return end


def _writer(logger: logging.Logger) -> Callable[[Event], None]:
    def write(event: Event) -> None:
        level = LEVELS.get(event.name, logging.INFO)
        if event.name == "job.logged":
            level = logging.getLevelNamesMapping().get(str(getattr(event, "level", "info")).upper(), logging.INFO)
        if logger.isEnabledFor(level):
            logger.log(level, "%s", sentence(event), extra={"dayjob": event})

    return write


def sentence(event: Event) -> str:
    """*event* as one line for people: its name, then what it carries; long texts follow on lines of their own."""
    fields = msgspec.structs.asdict(event)
    fields.pop("at")
    long = [str(fields.pop(name)).rstrip() for name in _LONG if fields.get(name)]
    for name in _LONG:
        fields.pop(name, None)
    said = fields.pop("message", None)
    words = [f"{name}={_shown(value)}" for name, value in fields.items() if value not in (None, "", False)]
    head = " ".join([event.name, *([str(said)] if said is not None else []), *words])
    return "\n".join([head, *long])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ",".join(f"{key}:{number}" for key, number in value.items()) or "-"
    text = str(value)
    return repr(text) if " " in text or "\n" in text else text


class ConsoleForm(logging.Formatter):
    """`12:04:05.123 WARNING job.failed id=… task=…`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone()
        text = f"{moment:%H:%M:%S}.{int(record.msecs):03d} {record.levelname:<7} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JSONForm(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: Event | None = getattr(record, "dayjob", None)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if event is None:
            line["message"] = record.getMessage()
            if record.exc_info:
                line["traceback"] = self.formatException(record.exc_info)
        else:
            fields = msgspec.structs.asdict(event)
            fields.pop("at")
            if "level" in fields:  # a line that a job wrote
                line["level"] = fields.pop("level")
            line |= {"event": event.name, **fields}
        return msgspec.json.encode(line).decode()
