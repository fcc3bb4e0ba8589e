"""Tasks, groups, calls not stored yet, and the one vocabulary of options."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from dayjob import JobContext, Retention, Retry, Settings, Tasks
from dayjob.clock import to_stamp
from dayjob.errors import ConfigError, NotSupported, PayloadInvalid, PayloadTooLarge, UnknownTask
from dayjob.options import Options
from dayjob.policies import Overrides, RetryNumbers, shown
from dayjob.registry import Registry
from dayjob.states import State
from dayjob.task import AsyncTask, NewJob, Task


class Host:
    """Keeps what it is told to store."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.stored: list[NewJob[Any]] = []

    def store(self, new: NewJob[Any]) -> Any:
        self.stored.append(new)
        return new

    async def astore(self, new: NewJob[Any]) -> Any:
        self.stored.append(new)
        return new


tasks = Tasks(prefix="billing.", queue="billing", retry=Retry(4), meta={"team": "a"})


@tasks.task
async def send(user_id: int) -> str:
    """Greets."""
    return f"user {user_id}"


@tasks.task(priority=10, timeout=30, tags=["vip"], meta={"unit": "b"})
def charge(ctx: JobContext[Any], order_id: int, amount: Decimal = Decimal(1)) -> tuple[str, int, Decimal]:
    return ctx.task, order_id, amount


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    registry = Registry(host.settings, host)
    for task in tasks:
        registry.add(task)
    yield host
    for task in tasks:
        task.host = None
        task.queue_options = None
        task.refresh()


# -- declaring -------------------------------------------------------------------------------------------------------


def test_a_tasks_name_is_prefix_and_function_name() -> None:
    assert [task.name for task in tasks] == ["billing.send", "billing.charge"]
    assert [type(task) for task in tasks] == [AsyncTask, Task]
    assert [task.kind for task in tasks] == ["async", "thread"]


def test_without_a_prefix_it_is_module_and_function_name() -> None:
    def resize(image: str) -> None: ...

    assert Tasks().task(resize).name == f"{__name__}.resize"
    assert Tasks(prefix="").task(resize).name == "resize"
    assert Tasks().task(name="pictures:resize")(resize).name == "pictures:resize"


def test_a_task_looks_like_its_function() -> None:
    assert (send.__name__, send.__doc__, send.__wrapped__.__name__) == ("send", "Greets.", "send")  # type: ignore[attr-defined]
    assert repr(charge) == "<Task billing.charge(order_id, amount)>"


def test_calling_a_task_just_calls_the_function() -> None:
    assert charge(7, Decimal(2)) == ("billing.charge", 7, Decimal(2))  # type: ignore[call-arg,arg-type]


async def test_calling_an_async_task_gives_its_coroutine() -> None:
    assert await send(3) == "user 3"


def test_attributes_of_the_function_do_not_hide_the_tasks_own() -> None:
    def plain(n: int) -> None: ...

    plain.name = plain.enqueue = "mine"  # type: ignore[attr-defined]

    assert Tasks(prefix="x.").task(plain).name == "x.plain"


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": "../etc"}, "queue"),
        ({"queue": ""}, "queue"),
        ({"queue": "x" * 10_000}, "queue"),
        ({"queue": "{}"}, "queue"),
        ({"queue": "a'b"}, "queue"),
        ({"queue": "a\nb"}, "queue"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"retry": -1}, "max_attempts"),
        ({"retry": 10**9}, "max_attempts"),
        ({"retry": "always"}, "retry"),
        ({"retention": 3600}, "retention"),
        ({"tags": "vip"}, "tags"),
        ({"tags": ["a b"]}, "tag"),
        ({"tags": [1]}, "tag"),
        ({"tags": [f"t{n}" for n in range(101)]}, "tags"),
        ({"meta": {"a": {1, 2}}}, "meta"),
        ({"meta": {"a": datetime.min}}, "meta"),  # noqa: DTZ901  # on purpose
        ({"meta": {1: 2}}, "meta"),
        ({"meta": ["a"]}, "meta"),
        ({"meta": {"a": "x" * 20_000}}, "meta"),
        ({"expires": 0}, "expires"),
        ({"delay": -1}, "delay"),
        ({"version": 0}, "version"),
        ({"aliases": "old"}, "aliases"),
        ({"aliases": ["../old"]}, "task name"),
        ({"executor": "gpu"}, "executor"),
        ({"executor": "async"}, "block the event loop"),
        ({"name": ""}, "task name"),
        ({"name": "a" * 10_000}, "task name"),
        ({"name": "../x"}, "task name"),
        ({"name": 'x"y'}, "task name"),
        ({"name": "{x}"}, "task name"),
        ({"name": "a\x07"}, "task name"),
        ({"prioritty": 3}, "did you mean priority="),
        ({"run_at": datetime.now(UTC)}, "no option 'run_at'"),
        ({"id": "x"}, "no option 'id'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_option_that_makes_no_sense_is_refused_at_decoration(options: dict[str, Any], culprit: str) -> None:
    def task(n: int) -> None: ...

    began = time.thread_time()
    with pytest.raises(ConfigError) as caught:
        Tasks(prefix="x.").task(**options)(task)

    assert time.thread_time() - began < 0.1
    assert culprit in str(caught.value)


@pytest.mark.parametrize("option", ["durable"])
def test_options_of_later_releases_are_refused_by_name_never_ignored(option: str) -> None:
    options: dict[str, Any] = {option: True}

    with pytest.raises(NotSupported, match=f"{option}="):
        Tasks().task(**options)
    with pytest.raises(NotSupported, match=f"{option}="):
        Tasks(**options)
    with pytest.raises(NotSupported, match=f"{option}="):
        send.using(**options)
    absent: dict[str, Any] = {option: None}
    Tasks().task(**absent)


def test_a_connection_is_said_for_an_enqueue_and_nowhere_else() -> None:
    with pytest.raises(ConfigError, match="conn"):
        Tasks(conn=object())  # type: ignore[call-arg]  # a connection is for one enqueue


@pytest.mark.parametrize(
    ("thing", "problem"),
    [
        (int, "must be a function"),
        ("send", "must decorate a function"),
        (send, "a task already"),
        (lambda: None, "not allowed"),
    ],
    ids=["class", "text", "task", "lambda"],
)
def test_only_functions_become_tasks(thing: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Tasks(prefix="x.").task(thing)


def test_generators_are_refused_since_calling_one_runs_nothing() -> None:
    def sync() -> Iterator[int]:
        yield 1

    async def agen() -> Any:
        yield 1

    for fn in (sync, agen):
        with pytest.raises(ConfigError, match="generator"):
            Tasks(prefix="x.").task(fn)


def test_a_name_is_taken_once_in_a_group_and_in_a_registry() -> None:
    group, registry = Tasks(prefix="x."), Registry()

    def make() -> Task[Any, Any]:
        def twin(n: int) -> None: ...

        return Tasks(prefix="x.").task(twin)

    first, second = make(), make()
    registry.add(first)
    registry.add(first)  # the same task again is no second one

    with pytest.raises(ConfigError, match=r"'x\.twin' is taken by .*test_task\.py:\d+"):
        registry.add(second)

    @group.task
    def once(n: int) -> None: ...

    with pytest.raises(ConfigError, match="taken"):
        group.task(name="x.once")(lambda: None)


def test_an_alias_cannot_be_someones_name() -> None:
    registry = Registry()

    def old(n: int) -> None: ...
    def new(n: int) -> None: ...

    registry.add(Tasks(prefix="x.").task(old))
    with pytest.raises(ConfigError, match=r"x\.old"):
        registry.add(Tasks(prefix="x.").task(aliases=["x.old"])(new))


def test_hooks_and_upcasters_are_registered_once() -> None:
    group = Tasks(prefix="x.")

    @group.task(version=2)
    def task(n: int) -> None: ...

    @task.on_dead
    def hook(job: Any, error: BaseException) -> None: ...

    @task.upcast(1)
    def upcast(data: dict[str, Any]) -> dict[str, Any]:
        return {"n": data["m"]}

    assert task.dead_hook is hook
    assert task.signature.decode(b'{"m":3}') == (3,)
    for again in (
        lambda: task.on_dead(hook),
        lambda: task.upcast(1)(upcast),
        lambda: task.upcast(2),
        lambda: task.upcast(0),
    ):
        with pytest.raises(ConfigError):
            again()


SCRIPT = """
from dayjob import Tasks
tasks = Tasks()
@tasks.task
def hello(name: str) -> None: ...
print(hello.name)
"""


def test_a_task_in_a_script_gets_its_modules_real_name(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (tmp_path / "jobs.py").write_text(SCRIPT)
    (package / "__init__.py").write_text("")
    (package / "jobs.py").write_text(SCRIPT)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=15, check=False
        )
        return done.stdout.strip() or done.stderr

    assert run("jobs.py") == "jobs.hello"
    assert run("shop/jobs.py") == "shop.jobs.hello"
    assert run("-m", "shop.jobs") == "shop.jobs.hello"
    assert "no worker can find it" in run("-c", SCRIPT)


# -- calls not stored yet --------------------------------------------------------------------------------------------


def test_a_call_carries_what_task_and_group_say() -> None:
    new = charge.job(7)

    assert isinstance(new, NewJob)
    assert (new.task_name, new.payload, new.queue, new.priority) == ("billing.charge", b'{"order_id":7}', "billing", 10)
    assert (new.tags, new.meta) == (("vip",), {"team": "a", "unit": "b"})
    assert (new.delay, new.run_at, new.expires, new.max_attempts, new.overrides, new.id) == (None,) * 6


def test_using_changes_one_job() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    id = uuid4()
    new = charge.using(
        run_at=moment, priority=-5, queue="slow", retry=Retry(2, base=9), timeout=None, tags=["a", "a"], expires=timedelta(hours=1),
        retention=Retention(completed=(3600, 500)), meta={"by": "web", "unit": "c"}, id=id,
    ).job(7)  # fmt: skip

    assert (new.run_at, new.delay, new.priority, new.queue) == (to_stamp(moment), None, -5, "slow")
    assert (new.tags, new.expires, new.max_attempts, new.id) == (("a",), 3600.0, 2, str(id))
    assert new.meta == {"team": "a", "unit": "c", "by": "web"}
    assert new.overrides == Overrides(RetryNumbers(2, base=9.0), None, (3600.0, 86_400.0, None))


def test_using_is_added_to_using_and_the_later_wins() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    first = send.using(delay=60, priority=3, meta={"a": 1})
    then = first.using(run_at=moment, meta={"b": 2}).job(1)

    assert (then.delay, then.run_at, then.priority) == (None, to_stamp(moment), 3)
    assert then.meta == {"team": "a", "a": 1, "b": 2}
    assert first.job(1).delay == 60.0


def test_a_call_can_be_changed_before_it_is_stored() -> None:
    new = send.using(priority=3).job(1)
    new.meta["request"] = "r1"
    then = new.using(delay=5, meta={"more": True})

    assert (then.priority, then.delay, then.payload) == (3, 5.0, new.payload)
    assert then.meta == {"team": "a", "request": "r1", "more": True}
    assert new.delay is None


def test_calls_do_not_share_their_meta() -> None:
    first, second = charge.job(1), charge.job(2)
    first.meta["tenant"] = 1

    assert "tenant" not in second.meta
    assert "tenant" not in charge.job(3).meta


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": math.nan}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"delay": 10**12}, "delay"),
        ({"delay": 10**5_000}, "delay"),
        ({"delay": "60"}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": timedelta(days=-1)}, "delay"),
        ({"delay": timedelta.max}, "delay"),
        ({"run_at": datetime.min}, "run_at"),  # noqa: DTZ901  # on purpose
        ({"run_at": datetime(9999, 1, 1, tzinfo=UTC)}, "run_at"),
        ({"run_at": datetime.max.replace(tzinfo=UTC)}, "run_at"),
        ({"run_at": "now"}, "run_at"),
        ({"run_at": 1_700_000_000}, "run_at"),
        ({"run_at": 10**5_000}, "run_at"),
        ({"id": 10**5_000}, "uuid"),
        ({"delay": 1, "run_at": datetime.now(UTC)}, "delay= and run_at="),
        ({"expires": 0}, "expires"),
        ({"expires": -1}, "expires"),
        ({"expires": math.nan}, "expires"),
        ({"id": "order-7"}, "uuid"),
        ({"id": 7}, "uuid"),
        ({"id": ""}, "uuid"),
        ({"priority": 101}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"retry": Retry(backoff=lambda attempt, exc: 1)}, "backoff"),
        ({"retry": Retry(give_up_on=(KeyError,))}, "give_up_on"),
        ({"version": 2}, "no option 'version'"),
        ({"executor": "thread"}, "no option 'executor'"),
        ({"queu": "x"}, "did you mean queue="),
    ],
    ids=shown,
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_written(
    options: dict[str, Any], culprit: str, host: Host
) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError) as caught:
        send.using(**options).enqueue(1)
    with pytest.raises(ConfigError):
        send.job(1).using(**options).enqueue()

    assert time.thread_time() - began < 0.2
    assert culprit in str(caught.value)
    assert len(str(caught.value)) < 400
    assert host.stored == []


def test_a_call_of_a_task_of_no_app_says_how_to_include_it() -> None:
    def lonely(n: int) -> None: ...

    task = Tasks(prefix="x.").task(lonely)

    for call in (lambda: task.enqueue(1), lambda: task.job(1).enqueue(), lambda: task.using(delay=1).enqueue(1)):
        with pytest.raises(ConfigError, match=rf"x\.lonely.*include=\['{__name__}'\]"):
            call()


# -- belonging -------------------------------------------------------------------------------------------------------


async def test_calls_go_to_the_host(host: Host) -> None:
    charge.enqueue(1)  # type: ignore[arg-type,call-arg]
    await charge.aenqueue(2)  # type: ignore[arg-type,call-arg]
    charge.using(priority=1).enqueue(3)  # type: ignore[arg-type,call-arg]
    await charge.using(priority=1).aenqueue(4)  # type: ignore[arg-type,call-arg]
    charge.job(5).enqueue()  # type: ignore[arg-type,call-arg]
    await charge.job(6).aenqueue()  # type: ignore[arg-type,call-arg]

    assert [new.payload for new in host.stored] == [b'{"order_id":%d}' % n for n in range(1, 7)]


def test_a_wrong_call_stores_nothing(host: Host) -> None:
    for call in (
        lambda: send.enqueue("7"),
        lambda: send.enqueue(),
        lambda: send.enqueue(1, 2),
        lambda: send.enqueue(usr=1),
    ):  # type: ignore[arg-type,call-arg]
        with pytest.raises(PayloadInvalid):
            call()

    assert host.stored == []


def test_the_hosts_limit_holds() -> None:
    def task(text: str) -> None: ...

    small = Tasks(prefix="x.").task(task)
    host = Host(Settings(max_payload=100))
    Registry(host.settings, host).add(small)

    with pytest.raises(PayloadTooLarge):
        small.enqueue("x" * 100)
    with pytest.raises(PayloadTooLarge):
        small.using(delay=1).enqueue("x" * 100)
    assert host.stored == []


def registry_of(*added: Task[Any, Any], settings: Settings | None = None) -> Registry:
    host = Host(settings)
    registry = Registry(host.settings, host)
    for task in added:
        registry.add(task)
    return registry


def test_the_nearer_option_wins() -> None:
    """using > decorator > group > queue > settings, for what producers and what workers need."""
    group = Tasks(prefix="x.", queue="q", retry=3)

    @group.task(priority=10)
    def own(n: int) -> None: ...

    @group.task
    def bare(n: int) -> None: ...

    registry = registry_of(own, bare, settings=Settings(timeout=99.0, retention=Retention(dead=77)))
    before = (own.job(1), bare.using(tags=["t"]), bare.using(tags=["t"]).job(1).priority)
    registry.queue_defaults("q", priority=-7, retry=8, timeout=55, expires=44, tags=["queued"], meta={"m": 1})

    assert before[0].priority == 10
    assert before[2] == 0
    assert [own.job(1).priority, bare.job(1).priority, before[1].job(1).priority] == [10, -7, -7]
    assert [bare.using(priority=5).job(1).priority, bare.using(queue="other").job(1).priority] == [5, 0]
    assert (bare.job(1).expires, bare.job(1).tags, bare.job(1).meta) == (44.0, ("queued",), {"m": 1})
    assert registry.plan("x.bare", "q").retry.max_attempts == 3
    assert [registry.plan("x.bare", "q").timeout, registry.plan("x.bare", "other").timeout] == [55.0, 99.0]
    assert registry.plan("x.bare", "q").keep[State.DEAD] == 77.0


def test_what_one_job_changed_reaches_its_plan() -> None:
    def task(n: int) -> None: ...

    changed = Tasks(prefix="x.").task(retry=Retry(9, give_up_on=(KeyError,)), timeout=30)(task)
    registry = registry_of(changed)
    new = changed.using(retry=2, timeout=None, retention=Retention(completed=5, dead=6)).job(1)
    assert new.overrides is not None
    plan = registry.plan("x.task", "default", new.overrides.to_bytes())

    assert (plan.retry, plan.timeout) == (Retry(2, give_up_on=(KeyError,)), None)
    assert plan.keep == {State.COMPLETED: 5.0, State.CANCELLED: 86_400.0, State.DEAD: 6.0}
    assert registry.plan("x.task", "default", None) is registry.plan("x.task", "default", None)


def test_a_plan_runs_the_function() -> None:
    registry = registry_of(send, charge)
    plan = registry.plan("billing.charge", "billing")
    decoded = plan.decode(b'{"order_id":7}')

    assert (plan.kind, plan.takes_context, plan.timeout, plan.retry) == ("thread", True, 30.0, Retry(4))
    assert plan.fn(JobContext.detached(charge), *decoded) == ("billing.charge", 7, Decimal(1))
    assert plan.encode_result(("a", 7, Decimal("1.0")), 100) == b'["a",7,"1.0"]'


def test_an_unknown_task_is_answered_with_the_names_that_are_near() -> None:
    with pytest.raises(UnknownTask, match=r"Did you mean 'billing\.charge'"):
        registry_of(send, charge).get("billing.chrage")


def test_an_alias_finds_the_task_under_its_new_name() -> None:
    def task(n: int) -> None: ...

    registry = registry_of(Tasks(prefix="x.").task(aliases=["old.name"])(task))

    assert registry.get("old.name").name == registry.plan("old.name", "default").task.name == "x.task"
    assert "old.name" in registry
    assert registry.names() == ["x.task"]


@pytest.mark.parametrize(
    "options", [{"run_at": datetime.now(UTC)}, {"id": UUID(int=1)}, {"queue": "x"}, {"executor": "thread"}], ids=str
)
def test_a_queue_has_no_defaults_for_what_is_one_jobs_matter(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"queue 'q': defaults"):
        Registry().queue_defaults("q", **options)


def test_options_that_say_nothing_change_nothing() -> None:
    farther = Options(priority=3, delay=5.0)

    assert Options().over(farther) is farther


# -- cost ------------------------------------------------------------------------------------------------------------


def test_import_stays_light() -> None:
    """What only enqueues needs neither the worker nor asyncio nor the command line."""
    code = "import sys, dayjob; dayjob.Retry, dayjob.State; print([m for m in ('asyncio', 'click', 'sqlite3', 'dayjob.worker') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True)

    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_had() -> None:
    import dayjob

    rooms = {home for home in dayjob._HOME.values() if importlib.util.find_spec(f"dayjob.{home}")}
    names = [name for name in dayjob.__all__ if dayjob._HOME[name] in rooms]

    assert [name for name in names if getattr(dayjob, name).__name__ != name] == []
    assert set(dayjob.__all__) == set(dayjob._HOME)
    assert set(dayjob.__all__) <= set(dir(dayjob))
    with pytest.raises(AttributeError, match="nonsense"):
        dayjob.nonsense  # type: ignore[attr-defined]  # noqa: B018  # it raises
