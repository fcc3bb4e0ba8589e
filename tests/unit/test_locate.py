"""Finding the app, finding it again in a child, and finding what it includes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayjob import App, ConfigError, Tasks
from dayjob.locate import AppRef, find_app, load, ref_of

APP = "from dayjob import App\napp = App('sqlite:///:memory:')\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder for modules, forgotten by the interpreter afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def write(project: Path, name: str, text: str = APP) -> Path:
    file = project / name
    for folder in reversed([folder for folder in file.parents if folder != project and project in folder.parents]):
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "target",
    ["located_a.jobs:app", "located_a.jobs", "located_a/jobs.py", "located_a/jobs.py:app", "located_a.jobs:holder.app"],
)
def test_an_app_is_found_by_module_and_by_file(project: Path, target: str) -> None:
    write(project, "located_a/jobs.py", APP + "class holder: pass\nholder.app = app\n")
    app = find_app(target, {}, project)

    assert isinstance(app, App)
    assert app is sys.modules["located_a.jobs"].app


def test_the_nearest_word_wins(project: Path) -> None:
    write(project, "located_b.py", APP + "other = App('sqlite:///:memory:')\nthird = App('sqlite:///:memory:')\n")
    (project / "pyproject.toml").write_text('[tool.dayjob]\napp = "located_b:third"\n')
    deep = project / "deep" / "down"
    deep.mkdir(parents=True)
    named = find_app("located_b:app", {"DAYJOB_APP": "located_b:other"}, project)
    module = sys.modules["located_b"]

    assert named is module.app
    assert find_app(None, {"DAYJOB_APP": "located_b:other"}, project) is module.other
    assert find_app(None, {}, deep) is module.third


def test_a_module_with_one_app_of_any_name(project: Path) -> None:
    write(project, "located_c.py", "from dayjob import App\nqueue_of_ours = App('sqlite:///:memory:')\n")

    assert find_app("located_c", {}, project).ref == AppRef("located_c", [str(project)])


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (None, "no app was named"),
        ("nowhere", "no module 'nowhere'"),
        ("located_d.nowhere:app", "no module 'located_d.nowhere'"),
        ("located_d:nothing", "has no such variable"),
        ("located_d:text", "holds str, not an App"),
        ("located_d", "has no App"),
        ("located_d.many", "which one"),
        ("nowhere.py", "no file"),
        ("located_d:", "is no app"),
        (":app", "is no app"),
        ("located_d:a b", "is no app"),
    ],
)
def test_what_is_not_there_is_said(project: Path, target: str | None, says: str) -> None:
    write(
        project,
        "located_d/many.py",
        "from dayjob import App\na, b = App('sqlite:///:memory:'), App('sqlite:///:memory:')\n",
    )
    (project / "located_d/__init__.py").write_text("text = 'x'\n")
    with pytest.raises(ConfigError, match=says):
        find_app(target, {}, project)


def test_a_mistake_inside_the_module_comes_through_as_it_is(project: Path) -> None:
    write(project, "located_e.py", "import does_not_exist_anywhere\n")
    write(project, "located_f.py", "1 / 0\n")
    with pytest.raises(ModuleNotFoundError, match="does_not_exist_anywhere"):
        find_app("located_e:app", {}, project)
    with pytest.raises(ZeroDivisionError):
        find_app("located_f:app", {}, project)


def test_a_pyproject_that_cannot_be_read_is_said(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.dayjob\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_app(None, {}, project)
    (project / "pyproject.toml").write_text("[tool.dayjob]\napp = 7\n")
    with pytest.raises(ConfigError, match="must be text"):
        find_app(None, {}, project)


def test_an_app_is_found_again_by_its_reference(project: Path) -> None:
    write(project, "located_g.py")
    app = find_app("located_g:app", {}, project)
    app.ref = None
    ref = ref_of(app)

    assert ref is not None
    assert (ref.target, ref.main_file) == ("located_g:app", None)
    assert load(ref) is app
    assert ref_of(App("sqlite:///:memory:")) is None


@pytest.mark.parametrize("name", ["script.py", "my-script.py", "located_h/script.py"])
def test_an_app_in_a_script_is_found_again_by_a_child(project: Path, name: str) -> None:
    script = write(
        project,
        name,
        APP
        + "@app.task\ndef note() -> None: ...\n"
        + "if __name__ == '__main__':\n"
        + "    import subprocess, sys\n"
        + "    from dayjob.locate import ref_of\n"
        + "    ref = ref_of(app)\n"
        + "    code = ('from dayjob.locate import AppRef, load; '\n"
        + "            f'print(load(AppRef({ref.target!r}, {ref.path!r}, {ref.main_file!r})).registry.names())')\n"
        + "    print(app.registry.names())\n"
        + "    sys.stdout.flush()\n"
        + "    subprocess.run([sys.executable, '-c', code], check=True)\n",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd="/", check=False)

    assert done.stderr == ""
    mine, childs = done.stdout.splitlines()
    assert mine == childs


# -- include ---------------------------------------------------------------------------------------------------------

TASKS = "from dayjob import Tasks\ntasks = Tasks()\n@tasks.task\ndef note(text: str) -> None: ...\n"


def test_a_pattern_finds_the_tasks_of_every_part(project: Path) -> None:
    sys.path.insert(0, str(project))
    write(project, "shop_a/mail/tasks.py", TASKS)
    write(project, "shop_a/billing/tasks.py", TASKS)
    write(project, "shop_a/billing/views.py", "1 / 0\n")
    app = App("sqlite:///:memory:", include=["shop_a.*.tasks"])

    assert app.registry.names() == ["shop_a.billing.tasks.note", "shop_a.mail.tasks.note"]


def test_a_task_that_is_imported_first_finds_its_app_by_itself(project: Path) -> None:
    sys.path.insert(0, str(project))
    write(
        project, "shop_b/jobs.py", "from dayjob import App\napp = App('sqlite:///:memory:', include=['shop_b.tasks'])\n"
    )
    write(project, "shop_b/tasks.py", "from shop_b.jobs import app as _app\n" + TASKS)
    from shop_b.tasks import note  # type: ignore[import-not-found]

    assert note.enqueue("hello").args == {"text": "hello"}


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("shop_c.nowhere", "names no module"),
        ("shop_c.*.nowhere", "names no module"),
        ("nowhere.tasks", "names no module"),
        ("*.tasks", "must begin with"),
        ("", "must begin with"),
        ("shop_c..tasks", "must begin with"),
    ],
)
def test_a_pattern_that_names_nothing_is_said(project: Path, pattern: str, says: str) -> None:
    sys.path.insert(0, str(project))
    write(project, "shop_c/mail/tasks.py", TASKS)
    app = App("sqlite:///:memory:", include=[pattern])
    for _ in range(2):
        with pytest.raises(ConfigError, match=says):
            _ = app.registry


def test_a_mistake_in_an_included_module_comes_through(project: Path) -> None:
    sys.path.insert(0, str(project))
    write(project, "shop_d/tasks.py", "import does_not_exist_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="does_not_exist_anywhere"):
        _ = App("sqlite:///:memory:", include=["shop_d.tasks"]).registry


def test_groups_tasks_and_modules_can_be_included_as_they_are() -> None:
    group = Tasks(prefix="group.", queue="mail")

    @group.task
    def one(text: str) -> None: ...

    @group.task(name="two")
    def two() -> None: ...

    app = App("sqlite:///:memory:", include=group)
    app.include(group, one)

    assert app.registry.names() == ["group.one", "two"]
    assert one.enqueue("x").queue == "mail"
    with pytest.raises(ConfigError, match="include takes"):
        app.include(7)  # type: ignore[arg-type]


def test_a_name_is_taken_once() -> None:
    app = App("sqlite:///:memory:")

    @app.task(name="same")
    def one() -> None: ...

    with pytest.raises(ConfigError, match=r"test_locate.py:\d+.*test_locate.py:\d+"):

        @app.task(name="same")
        def two() -> None: ...


def test_a_script_that_imports_its_app_is_not_what_children_load(project: Path) -> None:
    write(project, "shop.py")
    write(project, "script.py", "from shop import app\nfrom dayjob.locate import ref_of\nprint(ref_of(app).target)\n")

    said = subprocess.run([sys.executable, "script.py"], cwd=project, capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "shop:app"
