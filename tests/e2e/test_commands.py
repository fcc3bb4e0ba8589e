"""The command line, by subprocess: what it prints, what it returns, what it refuses."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import Project

JOB_FIELDS = {
    "id", "task", "queue", "state", "reason", "priority", "attempt", "max_attempts", "crashes", "args", "run_at", "created_at",
    "started_at", "finished_at", "worker", "progress", "error", "tags", "meta", "flow_id",
}  # fmt: skip


def test_help_is_fast_and_names_every_command(project: Project) -> None:
    started = time.perf_counter()
    helped = project("--help")
    took = time.perf_counter() - started

    for command in ("worker", "demo", "enqueue", "jobs", "dead", "queues", "events", "migrate", "doctor", "schedules"):
        assert f"  {command} " in helped.out
    assert took < 2.0  # 0.1 s on an idle machine: no store, no app, no rich is imported


def test_a_job_goes_through_its_whole_life(project: Project) -> None:
    id = project.enqueue("greet", name="Ada")
    listed = project("jobs", "list", "--json").json
    project("worker", "--burst")
    shown = project("jobs", "show", id, "--json").json

    assert [job["id"] for job in listed] == [id]
    assert set(listed[0]) == JOB_FIELDS
    assert (listed[0]["state"], listed[0]["queue"], listed[0]["args"]["name"]) == ("available", "mail", "Ada")
    assert (shown["state"], shown["attempt"]) == ("completed", 1)
    assert set(shown) == JOB_FIELDS | {"attempts", "logs", "unique", "lane", "limits"}


def test_options_of_enqueue_reach_the_job(project: Project) -> None:
    id = project.enqueue(
        "greet", "--delay", "2h", "--priority", "7", "--tag", "vip", "--tag", "eu", "-q", "late", name="A"
    )
    job = project("jobs", "show", id, "--json").json

    assert (job["state"], job["priority"], job["tags"], job["queue"]) == ("scheduled", 7, ["vip", "eu"], "late")


def test_every_option_is_read_from_the_environment(project: Project) -> None:
    run = project("enqueue", "greet", DAYJOB_ARGS='{"name": "Env"}', DAYJOB_PRIORITY="3", DAYJOB_JSON="1")

    assert (run.json["args"]["name"], run.json["priority"]) == ("Env", 3)


def test_an_id_of_ones_own_makes_enqueue_repeatable(project: Project) -> None:
    id = "01890000-0000-7000-8000-000000000001"
    first, second = (project.enqueue("greet", "--id", id, name="A") for _ in range(2))

    assert first == second == id
    assert len(project("jobs", "list", "--json").json) == 1


@pytest.mark.timeout(90)
def test_a_blocked_job_says_what_it_waits_for_and_a_limit_is_changed_by_hand(project: Project) -> None:
    id = project.enqueue("limited", n=1)
    other = project.enqueue("limited", n=2)
    project("worker", "--burst")
    (waits,) = (one for one in (id, other) if project("jobs", "show", one, "--json").json["state"] == "blocked")
    shown = project("jobs", "show", waits, "--json").json
    (limit,) = shown["limits"]

    assert (limit["kind"], limit["key"], limit["taken"], limit["limit"]) == ("rate", "api", 1, 1)
    assert 3500 < limit["opens"] <= 3600
    assert shown["unique"] == {"key": f"n:{shown['args']['n']}", "until": "done", "ttl": None}
    told = project("jobs", "show", waits).out
    assert "waits for  rate api: 1 of 1 taken in 1.0 h, opens in " in told
    assert "1 job waits" in told
    assert "waits for rate api" in project("jobs", "list", "--state", "blocked").out
    (row,) = project("limits", "list", "--json").json
    assert (row["kind"], row["key"], row["waiting"]) == ("rate", "api", 1)
    assert "rate  api" in project("limits", "list").out
    stats = project("stats", "--json").json
    assert [(one["key"], one["waiting"]) for one in stats["limits"]] == [("api", 1)]
    assert stats["breakers"] == []

    assert project("limits", "set", "rate", "api", "5", "--per", "1h").out == "rate api: 5 in 1.0 h\n"
    project("worker", "--burst")
    assert project("jobs", "show", waits, "--json").json["state"] == "completed"
    assert project("limits", "clear", "rate", "api", "--json").json["limit"] is None


def test_a_breaker_is_opened_and_closed_by_hand(project: Project) -> None:
    project("migrate")
    assert "all breakers are closed" in project("breakers", "list").out
    assert project("breakers", "open", "psp").out == "psp is open\n"
    (row,) = project("breakers", "list", "--json").json
    assert (row["key"], row["state"], row["opens"]) == ("psp", "open", None)
    assert "psp      open" in project("breakers", "list").out
    assert project("breakers", "close", "psp", "--json").json == {"key": "psp", "state": "closed"}
    assert project("breakers", "list", "--json").json == []


def test_a_key_given_by_hand_lets_one_job_in(project: Project) -> None:
    assert project.enqueue("greet", "--unique", "k", name="A") == project.enqueue("greet", "--unique", "k", name="B")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["limits", "set", "speed", "api", "5"], "speed"),
        (["limits", "set", "rate", "api", "0"], "limit=0"),
        (["limits", "set", "rate", "api", "--", "-1"], "limit=-1"),
        (["limits", "set", "rate", "api", "99999999999999999999"], "limit="),
        (["limits", "set", "rate", "", "5"], "empty"),
        (["limits", "set", "concurrency", "api", "5", "--per", "1s"], "per="),
        (["limits", "set", "rate", "x" * 10_000, "5"], "10,000"),
        (["breakers", "open", ""], "empty"),
        (["enqueue", "greet", "--args", '{"nam": "A"}'], "no such argument"),
        (["enqueue", "greet", "--args", '{"name": 5}'], "'name'"),
        (["enqueue", "greet", "--args", "{}"], "name"),
        (["enqueue", "greet", "--args", "[1]"], "JSON object"),
        (["enqueue", "greet", "--args", "{nope"], "no JSON"),
        (["enqueue", "greex", "--args", "{}"], "'greet'"),
        (["enqueue", "greet", "--priority", "101", "--args", '{"name": "A"}'], "-100 and 100"),
        (["enqueue", "greet", "--priority", "1.5"], "1.5"),
        (["enqueue", "greet", "--delay=-5", "--args", '{"name": "A"}'], "duration"),
        (["enqueue", "greet", "--queue", "../etc", "--args", '{"name": "A"}'], "queue name"),
        (["enqueue", "greet", "--timeout", "0", "--args", '{"name": "A"}'], "timeout"),
        (["jobs", "cancel"], "which jobs"),
        (["jobs", "delete"], "which jobs"),
        (["dead", "discard"], "which jobs"),
        (["jobs", "cancel", "x", "--queue", "y"], "not both"),
        (["jobs", "cancel", "--state", "dead"], "dead"),
        (["jobs", "list", "--since", "whenever"], "whenever"),
        (["jobs", "list", "--state", "nope"], "nope"),
        (["jobs", "list", "--limit", "0"], "--limit"),
        (["worker", "-q", "mail:x"], "mail:x"),
        (["worker", "-q", "mail", "-q", "mail:2"], "twice"),
        (["worker", "--http", "9000"], "--http is not supported"),
        (["worker", "--burst", "-p", "2"], "--burst"),
        (["migrate", "--pre"], "--pre"),
        (["top"], "not supported"),
        (["check-deploy"], "not supported"),
        (["jbos"], "'jobs'"),
        (["jobs", "list", "--url", "nosuch://x"], "nosuch"),
        (["jobs", "list", "--app", "nosuch:app"], "nosuch"),
        (["jobs", "list", "--app", "shop:nothing"], "nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(empty: Project, args: list[str], complaint: str) -> None:
    run = empty(*args, status=2)

    assert run.out == ""
    assert run.err.startswith("dayjob: ")
    assert run.err.count("\n") == 1
    assert complaint in run.err


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["jobs", "show", "nope"], "no job 'nope'"),
        (["jobs", "show", "01890000-0000-7000-8000-000000000001"], "no job"),
        (["dead", "show", "01890000-0000-7000-8000-000000000001"], "no job"),
        (["dead", "retry", "01890000-0000-7000-8000-000000000001"], "no job"),
        (["jobs", "list", "--url", "sqlite:///missing/x.db"], "missing"),
        (["jobs", "list", "--url", "sqlite:///absent.db"], "no store at"),
        (["jobs", "list", "--url", "sqlite:///shop.py"], "shop.py"),
    ],
)
def test_what_fails_is_one_line_and_exit_1(empty: Project, args: list[str], complaint: str) -> None:
    run = empty(*args, status=1)

    assert run.err.startswith("dayjob: ")
    assert run.err.count("\n") == 1
    assert complaint in run.err


def test_an_app_that_cannot_be_imported_is_blamed_by_file_and_line(project: Project) -> None:
    (project.folder / "shop.py").write_text("x = 1\nraise RuntimeError('no licence')\n")
    run = project("jobs", "list", status=1)

    assert "RuntimeError: no licence" in run.err
    assert "shop.py, line 2" in run.err
    assert "Traceback" not in run.err


def test_the_store_alone_needs_no_code(project: Project) -> None:
    id = project.enqueue("greet", name="Ada")
    url = f"sqlite:///{project.folder}/dayjob.db"
    (project.folder / "shop.py").write_text("raise RuntimeError('no licence')")
    by_option = project("jobs", "list", "--json", "--url", url).json
    by_environment = project("jobs", "list", "--json", DAYJOB_URL=url).json
    project("jobs", "cancel", id, "--yes", "--url", url)

    assert [job["id"] for job in by_option] == [job["id"] for job in by_environment] == [id]
    assert project("jobs", "show", id, "--json", "--url", url).json["state"] == "cancelled"


def test_an_apps_own_store_wins_over_the_environment_and_loses_to_the_option(project: Project) -> None:
    """Producer and worker must meet at one store: in Python DAYJOB_URL is only the default, and so it is here."""
    own, other = (f"sqlite:///{project.folder}/{name}.db" for name in ("own", "other"))
    text = (project.folder / "shop.py").read_text()
    (project.folder / "shop.py").write_text(text.replace("App(lifespan", f"App({own!r}, lifespan"))
    environment = {"DAYJOB_URL": other, "DAYJOB_APP": "shop:app"}
    enqueued = project("enqueue", "greet", "--args", '{"name": "Ada"}', "--json", **environment).json
    project("worker", "--burst", **environment)

    assert project("jobs", "show", enqueued["id"], "--json", **environment).json["state"] == "completed"
    assert project("jobs", "show", enqueued["id"], "--json", "--url", own).json["state"] == "completed"
    assert not (project.folder / "other.db").exists()


def test_filters_and_pages(project: Project) -> None:
    ids = [project.enqueue("greet", "--tag", f"n{n}", name=str(n)) for n in range(5)]
    first = project("jobs", "list", "--limit", "2", "--json").json
    rest = project("jobs", "list", "--limit", "10", "--after", first[-1]["id"], "--json").json

    assert [job["id"] for job in first + rest] == ids[::-1]
    assert [job["id"] for job in project("jobs", "list", "--tag", "n3", "--json").json] == [ids[3]]
    assert [job["id"] for job in project("jobs", "list", "--text", ids[1], "--json").json] == [ids[1]]
    assert project("jobs", "list", "--queue", "other", "--json").json == []
    assert len(project("jobs", "list", "--since", "1h", "--state", "available", "--json").json) == 5


def test_destructive_commands_ask_and_do_nothing_without_an_answer(project: Project) -> None:
    project.enqueue("greet", name="A")
    project.enqueue("greet", name="B")
    refused = [
        project("jobs", "cancel", "--all", status=2),
        project("jobs", "delete", "--queue", "mail", status=2),
        project("queues", "purge", "mail", status=2),
    ]

    assert all("2 jobs" in run.err and "--yes" in run.err for run in refused)
    assert len(project("jobs", "list", "--state", "available", "--json").json) == 2


def test_cancel_retry_delete_say_how_many(project: Project) -> None:
    a, b = project.enqueue("greet", name="A"), project.enqueue("greet", name="B")

    assert project("jobs", "cancel", a, "--yes", "--reason", "not wanted").out == "cancelled 1 job\n"
    assert project("jobs", "show", a, "--json").json["reason"] == "not wanted"
    assert project("jobs", "cancel", "--all", "--yes", "--json").json == {"cancelled": 1}
    assert project("jobs", "retry", a).out == "retried 1 job\n"
    assert project("jobs", "delete", a, b, "--yes").out == "deleted 2 jobs\n"
    assert project("jobs", "delete", a, "--yes", status=1).out == "deleted 0 jobs\n"


def test_edit_changes_a_job_that_waits(project: Project) -> None:
    id = project.enqueue("greet", "--delay", "1d", name="A")
    project("jobs", "edit", id, "--priority", "9", "--args", '{"name": "B"}', "--run-at", "now")
    job = project("jobs", "show", id, "--json").json
    refused = project("jobs", "edit", id, "--args", '{"name": 5}', status=2)

    assert (job["state"], job["priority"], job["args"]["name"]) == ("available", 9, "B")
    assert "'name'" in refused.err


def test_the_dead_are_listed_shown_retried_and_discarded(project: Project) -> None:
    a, b = project.enqueue("fail", why="first"), project.enqueue("fail", why="second")
    waiting = project.enqueue("greet", "--delay", "1d", name="A")
    project("worker", "--burst")
    listed = project("dead", "list", "--json").json
    shown = project("dead", "show", a, "--json").json
    text = project("dead", "show", a).out
    spared = project("dead", "discard", waiting, "--yes", status=1)
    retried = project("dead", "retry", a).out
    discarded = project("dead", "discard", "--all", "--yes").out

    assert [(job["id"], job["reason"], job["error"]["message"]) for job in listed] == [
        (b, "failed", "second"),
        (a, "failed", "first"),
    ]
    assert [one["outcome"] for one in shown["attempts"]] == ["dead"]
    assert shown["logs"][0]["message"] == "db is open"
    assert "ValueError: first" in text
    assert "shop.py" in text
    assert "not dead" in spared.err
    assert (retried, discarded) == ("retried 1 job\n", "discarded 1 job\n")
    assert project.state(waiting) == "scheduled"


def test_queues_are_listed_paused_resumed_drained_and_purged(project: Project) -> None:
    project.enqueue("greet", name="A")
    paused = project("queues", "pause", "mail").out
    again = project("queues", "pause", "mail").out
    project("worker", "--burst")
    row = project("queues", "list", "--json").json[0]
    left = project("queues", "drain", "mail", "--timeout", "0.1", "--json", status=1).json
    project("queues", "resume", "mail")
    project("worker", "--burst")

    assert (paused, again) == ("paused mail\n", "mail was paused already\n")
    assert (row["name"], row["paused"], row["counts"]["available"]) == ("mail", True, 1)
    assert left == {"queue": "mail", "left": 1, "new": "accept"}
    assert project("queues", "drain", "mail").out == "mail is drained\n"
    project.enqueue("greet", name="B")
    assert project("queues", "purge", "mail", "--yes", "--json").json == {"queue": "mail", "purged": 1}


def test_stats_workers_and_doctor_on_a_quiet_store(project: Project) -> None:
    project.enqueue("greet", name="A")
    stats = project("stats", "--json").json
    healthy = project("doctor", "--json").json

    assert stats["jobs"]["available"] == 1
    assert stats["workers"] == {"alive": 0, "slots": 0, "running": 0}
    assert project("workers", "--json").json == []
    assert healthy["healthy"] is True
    assert {one["about"] for one in healthy["findings"]} >= {"versions", "store", "schema", "workers"}
    assert "all is well" in project("doctor").out


def test_doctor_finds_what_is_wrong(project: Project) -> None:
    missing = project("doctor", "--json", status=1).json
    (project.folder / "broken.db").write_text("this is no database, whatever its name says" * 100)
    broken = project("doctor", "--url", "sqlite:///broken.db", status=1)

    assert [one["about"] for one in missing["findings"] if one["level"] == "problem"] == ["schema"]
    assert "!!" in broken.out
    assert "1 problem" in broken.out


def test_migrate_checks_prints_and_applies(project: Project) -> None:
    due = project("migrate", "--check", "--json", status=1).json
    sql = project("migrate", "--sql").out
    applied = project("migrate", "--json").json

    assert due["due"] == applied["applied"]
    assert due["due"]
    assert "CREATE TABLE" in sql
    assert project("migrate", "--check").out == "the schema is up to date\n"
    assert project("migrate").out == "the schema is up to date\n"


def test_jobs_run_runs_a_stored_job_here_and_keeps_nothing(project: Project) -> None:
    good, bad = project.enqueue("greet", name="Ada"), project.enqueue("fail", why="told you")
    ran = project("jobs", "run", good)
    failed = project("jobs", "run", bad, status=1)
    debugged = project("jobs", "run", bad, "--pdb", stdin="p 'why is ' + why\nq\n", status=1)

    assert ran.out == '"Hello, Ada!"\n'
    assert "ValueError: told you" in failed.err
    assert "info: db is open" in failed.err
    assert "progress 1 of 3 steps" in failed.err
    assert "'why is told you'" in debugged.out
    assert project.state(good) == project.state(bad) == "available"


def test_jobs_run_with_settle_keeps_how_it_ended(project: Project) -> None:
    good, bad = project.enqueue("greet", name="Ada"), project.enqueue("fail", why="told you")
    late = project.enqueue("greet", "--delay", "1h", name="Late")
    project("jobs", "run", good, "--settle")
    project("jobs", "run", bad, "--settle", status=1)
    refused = project("jobs", "run", late, "--settle", status=1)
    again = project("jobs", "run", good, "--settle", status=1)
    dead = project("jobs", "show", bad, "--json").json

    assert project.state(good) == "completed"
    assert (dead["state"], dead["reason"], dead["progress"]["done"]) == ("dead", "failed", 1.0)
    assert [line["message"] for line in dead["logs"]] == ["db is open"]
    assert "--run-at now" in refused.err
    assert "jobs retry" in again.err
    assert project.state(late) == "scheduled"
    assert project("workers", "--json").json == []


def test_plain_tables_are_aligned_and_without_codes(project: Project) -> None:
    project.enqueue("greet", name="A")
    lines = project("jobs", "list").out.splitlines()

    assert lines[0].split()[:4] == ["ID", "TASK", "QUEUE", "STATE"]
    assert lines[1].index("greet") == lines[0].index("TASK")
    assert "\x1b" not in "".join(lines)


def test_nothing_is_listed_in_words(empty: Project) -> None:
    assert empty("jobs", "list").out == "no jobs\n"
    assert empty("dead", "list").out == "no dead jobs\n"
    assert empty("queues", "list").out.startswith("no queues")
    assert empty("workers").out.startswith("no workers")
