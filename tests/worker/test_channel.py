"""Frames between a worker and its children: whole, in order, and an end that is noticed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from threading import Thread

import pytest

from dayjob.worker.channel import Channel, Hello, Say, Stop
from dayjob.worker.launch import describe


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    ours, theirs = Channel.pair()
    return ours, Channel(theirs)


def test_frames_arrive_whole_and_in_order_whatever_their_size(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    names = ["a" * size for size in (0, 1, 70_000, 3, 1_000_000)]
    sender = Thread(target=lambda: [ours.send(Hello(name)) for name in names])
    sender.start()

    received = [theirs.receive(5).worker for _ in names]
    sender.join()

    assert received == names
    ours.close()
    theirs.close()


def test_a_closed_end_is_noticed_by_reader_and_writer(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send(Stop())
    ours.close()

    assert theirs.receive(5) == Stop(now=False)
    assert theirs.receive(5) is None
    assert theirs.receive() is None
    assert theirs.send(Say([])) in (True, False)
    assert not theirs.send(Say([]))
    theirs.close()
    assert theirs.receive(0) is None


@pytest.mark.usefixtures("many_files")
def test_frames_arrive_beside_a_thousand_open_files() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    ours.send(Hello("x"))

    assert theirs.receive(5) == Hello("x")
    with pytest.raises(TimeoutError):
        theirs.receive(0.01)
    ours.close()
    theirs.close()


def test_waiting_has_an_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    with pytest.raises(TimeoutError):
        ours.receive(0.01)
    ours.close()
    theirs.close()


def test_closing_wakes_the_reader_of_the_same_end(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    found: list[object] = ["nothing yet"]
    reader = Thread(target=lambda: found.append(ours.receive()))
    reader.start()

    ours.close()
    reader.join(5)

    assert found[-1] is None
    theirs.close()


def test_a_frame_of_absurd_size_is_refused() -> None:
    left, right = socket.socketpair()
    left.sendall(b"\xff\xff\xff\xff")
    channel = Channel(right)

    with pytest.raises(ValueError, match="a frame of"):
        channel.receive(1)
    left.close()
    channel.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (1, "exit code 1"), (-signal.SIGKILL, "signal 9 (SIGKILL)"), (-250, "signal 250")],
)
def test_how_a_process_died_in_words(code: int, words: str) -> None:
    assert describe(code) == words


def test_importing_the_worker_needs_no_engine_and_little_time() -> None:
    code = "import sys, dayjob.worker; print('sqlite3' in sys.modules, 'ctypes' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert said.stdout.split()[0] == "False"
