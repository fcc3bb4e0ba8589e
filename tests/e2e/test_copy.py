"""`dayjob copy`: from one store to another, also while both work, also killed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from dayjob import App
from tests.e2e.conftest import Going, Project
from tests.servers.needed import needed
from tests.servers.postgres import postgres
from tests.servers.redis import redis

EFFECTS = """
@app.task(name="note")
def note(number: int, fails: bool = False) -> int:
    if fails and not os.path.exists(f"failed{number}"):
        open(f"failed{number}", "w").close()
        raise ValueError("once")
    with open("effects", "a") as file:
        file.write(f"{number} {os.environ['DAYJOB_URL'][:6]}\\n")
    time.sleep(0.01)
    return number
"""


class Move:
    """A project whose app is where DAYJOB_URL says, and two places for it.

    Attributes:
        app: a producer that knows the old place. made: how many jobs it has stored.
    """

    def __init__(self, project: Project, source: str, target: str) -> None:
        self.project, self.source, self.target = project, source, target
        code = project.folder / "shop.py"
        code.write_text(code.read_text() + EFFECTS)
        for url in (source, target):
            with App(url) as app:
                app.migrate()
        self.app = App(source)
        self.made = 0

    def enqueue(self, count: int) -> None:
        for _ in range(count):
            number, self.made = self.made, self.made + 1
            delay = 0.5 if number % 10 == 0 else 0
            self.app.enqueue("note", {"number": number, "fails": number % 7 == 0}, delay=delay)

    def worker(self, url: str) -> Going:
        going = self.project.start("worker", "-c", "4", DAYJOB_URL=url)
        going.said("worker.started")
        return going

    def copy(self, *options: str) -> Going:
        return self.project.start("copy", "--from", self.source, "--to", self.target, *options)

    @property
    def effects(self) -> Counter[int]:
        """How often each job had its effect."""
        path = self.project.folder / "effects"
        return Counter(int(line.split()[0]) for line in path.read_text().splitlines()) if path.exists() else Counter()


AROUND = ["sqlite-to-valkey", "valkey-to-postgres", "postgres-to-sqlite"]
"""Each kind of store once on either side; `tests/copying` goes in all six directions."""


@contextmanager
def place(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty store."""
    if kind == "postgres":
        with needed(postgres).database() as name:
            yield postgres().url(name)
    elif kind == "valkey":
        server = needed(redis)
        yield server.url(server.database())
    else:
        yield f"sqlite:///{folder}/jobs.db"


@pytest.fixture(params=["sqlite-to-valkey"])
def move(request: pytest.FixtureRequest, project: Project, tmp_path: Path) -> Iterator[Move]:
    source, _, target = request.param.partition("-to-")
    with place(source, tmp_path) as one, place(target, tmp_path) as other:
        made = Move(project, one, other)
        yield made
        made.app.close()
        project.end()


@pytest.mark.processes
def test_a_team_at_rest_moves_and_the_figures_say_so(move: Move) -> None:
    move.enqueue(30)
    planned = move.project("copy", "--from", move.source, "--to", move.target, "--dry-run", "--json").json
    assert planned["counts"]["available"]["copied"] + planned["counts"]["scheduled"]["copied"] == 30
    assert App(move.target).jobs.count() == 0

    done = move.project("copy", "--from", move.source, "--to", move.target)
    assert "everything is in" in done.out
    again = move.project("copy", "--from", move.source, "--to", move.target, "--json").json
    assert again["whole"]
    assert [count["found"] for count in again["counts"].values()] == [0] * len(again["counts"])
    with App(move.target) as app:
        assert app.jobs.count() == 30


@pytest.mark.processes
@pytest.mark.parametrize("wrong", ["--from", "--to"])
def test_both_stores_must_be_named(project: Project, wrong: str) -> None:
    given = {"--from": "sqlite:///a.db", "--to": "sqlite:///b.db"}
    del given[wrong]
    refused = project("copy", *[word for pair in given.items() for word in pair], status=2)

    assert f"Missing option '{wrong}'" in refused.err


@pytest.mark.processes
def test_a_store_that_is_not_there_is_no_empty_one(project: Project) -> None:
    refused = project("copy", "--from", "sqlite:///a.db", "--to", "sqlite:///b.db", status=2)

    assert "there is no store at" in refused.err
    assert not (project.folder / "b.db").exists()


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(60)
@pytest.mark.parametrize("move", AROUND, indirect=True)
def test_it_follows_workers_and_producers_killed_again_and_again_and_every_job_has_its_effect_once(move: Move) -> None:
    move.enqueue(200)
    old, new = move.worker(move.source), move.worker(move.target)
    enough = Event()

    def produce() -> None:
        while not enough.is_set():
            move.enqueue(1)
            enough.wait(0.005)

    producer = Thread(target=produce)
    producer.start()
    copying = move.copy("--live", "--json")
    for _ in range(3):
        with pytest.raises(Exception, match="timed out"):
            copying.wait(1.0)
        copying.signal(signal.SIGKILL)
        copying.wait()
        copying = move.copy("--live", "--json")
    Event().wait(1.0)
    enough.set()
    producer.join()
    old.signal(signal.SIGTERM)
    assert old.wait(20) == 0
    assert copying.wait(20) == 0, copying.__dict__
    with App(move.target) as app:
        for _ in range(300):
            if app.jobs.count(state=["completed"]) == move.made:
                break
            Event().wait(0.05)
        states = Counter(job.state for job in app.jobs.find(limit=5000))
    new.signal(signal.SIGTERM)
    new.wait(20)

    assert states == {"completed": move.made}
    assert move.effects == dict.fromkeys(range(move.made), 1)


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_hand_it_says_what_is_left_and_how_to_go_on(move: Move, number: signal.Signals) -> None:
    old = move.worker(move.source)
    copying = move.copy("--live")
    copying.said("following")
    move.enqueue(3)
    with App(move.target) as app:
        for _ in range(200):
            if app.jobs.count() + move.app.jobs.count(state=["completed"]) >= 3:
                break
            Event().wait(0.05)
    copying.signal(number)

    assert copying.wait() == 1
    copying.said("Run the same command again to go on", on="out")
    old.signal(signal.SIGTERM)
    old.wait(20)
