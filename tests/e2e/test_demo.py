"""`dayjob demo` as a stranger runs it: on a folder of one's own, and stopped in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Project


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts in several encodings, binary files, a broken link, names that are no UTF-8."""
    top = tmp_path / "input"
    (top / "deep" / "er").mkdir(parents=True)
    for n in range(60):
        (top / "deep" / f"text-{n}.txt").write_text(f"line {n}\nwörds and more\n")
    (top / "latin.txt").write_bytes("grün".encode("latin-1"))
    (top / "utf16.txt").write_bytes("grün".encode("utf-16"))
    (top / "empty").write_bytes(b"")
    (top / "deep" / "er" / "image.bin").write_bytes(b"\x89PNG\r\n\0\0")
    (top / "dangling").symlink_to(top / "nowhere")
    (top / os.fsdecode(b"odd-\xff-name")).write_text("odd")
    os.mkfifo(top / "pipe")
    return top


def demo(project: Project, folder: Path, scratch: Path, *options: str) -> subprocess.Popen[str]:
    scratch.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "dayjob", "demo", str(folder), *options],
        cwd=project.folder,
        env=project.environ | {"TMPDIR": str(scratch), "DAYJOB_URL": "sqlite:////nowhere/else.db"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def survivors(scratch: Path) -> list[str]:
    """Processes whose environment names *scratch*: workers that the demo has left behind."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if os.fsencode(scratch) in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.timeout(60)
@pytest.mark.processes
def test_every_file_is_read_and_the_killed_worker_loses_nothing(project: Project, folder: Path) -> None:
    scratch = project.folder / "scratch"
    process = demo(project, folder, scratch)
    out, _ = process.communicate(timeout=50)

    assert process.returncode == 0, out
    assert "kill -9 worker" in out
    # 60 + latin, utf16, empty, odd, late, growing are text; one is binary; the link, and the demo's three, lead nowhere
    assert "read       66 files" in out
    assert "1 binary (at once), 4 unreadable (after 3 attempts)" in out
    assert "of the killed worker: taken from it" in out
    assert "no difference" in out
    assert "every job ended as it should" in out
    assert "\x1b" not in out
    assert list(scratch.iterdir()) == []
    assert survivors(scratch) == []


@pytest.mark.timeout(60)
@pytest.mark.processes
def test_ctrl_c_leaves_nothing_behind(project: Project, folder: Path) -> None:
    scratch = project.folder / "scratch"
    process = demo(project, folder, scratch)
    assert process.stdout is not None
    for line in process.stdout:
        if "stored durably" in line:
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "stopped" in out
    assert "Traceback" not in out
    assert list(scratch.iterdir()) == []
    assert survivors(scratch) == []


@pytest.mark.timeout(60)
@pytest.mark.processes
def test_workers_end_even_when_the_demo_itself_is_killed(project: Project, folder: Path) -> None:
    scratch = project.folder / "scratch"
    process = demo(project, folder, scratch)
    assert process.stdout is not None
    for line in process.stdout:
        if "kill -9" in line:
            break
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while survivors(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert survivors(scratch) == []


def test_an_empty_folder_is_said_to_be_empty(project: Project) -> None:
    (project.folder / "nothing").mkdir()
    run = project("demo", "nothing", status=1)

    assert "no files below" in run.err
    assert "Traceback" not in run.err


def test_a_folder_that_is_not_there_is_wrong_usage(project: Project) -> None:
    assert "nowhere" in project("demo", "nowhere", status=2).err
