"""The entry point of child processes: `entry()` with the arguments ROLE CHANNEL LIFELINE (file descriptors).

A child imports its app again by name; nothing of the parent's memory comes along. It ends when the parent does: a
worker in order, as the channel closes; a pool child at once, even inside C code that keeps the GIL, because the kernel
signals the end of the lifeline.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

from dayjob.worker.channel import Channel, Failed, Hello, Leaving, Ran, Setup, Stop, not_for_forks
from dayjob.worker.launch import EXIT_AGAIN

if TYPE_CHECKING:
    from dayjob.app import App
    from dayjob.worker.worker import Worker

EXIT_UNSTARTED = 78
"""The exit code of a child that could not find its app or enter its lifespan (sysexits: configuration error)."""


def main(channel_fd: int, lifeline: int) -> int:
    """Become what the first frame says; returns the exit code."""
    for fd in (channel_fd, lifeline):
        os.set_inheritable(fd, False)
    channel = Channel(socket.socket(fileno=channel_fd))
    line = Line(lifeline)  # closed in what this process forks
    setup = channel.receive()
    if not isinstance(setup, Setup):
        return EXIT_UNSTARTED
    try:
        app = _load(setup)
        if setup.role == "pool":
            from dayjob.worker.poolchild import PoolChild

            die_with(line.fd)
            return PoolChild(app, channel).serve()
        worker = _worker(app, setup, channel)
    except BaseException as error:  # noqa: BLE001  # told to the parent, which shows it
        channel.send(Failed("".join(traceback.format_exception_only(error)).strip()))
        traceback.print_exc()
        return EXIT_UNSTARTED

    def goodbye() -> int:
        channel.send(Ran(worker.counts.total()))
        return EXIT_AGAIN if worker.again else 0

    worker.replace = lambda: end(goodbye())
    Thread(target=_obey, args=(channel, worker), name="dayjob-parent", daemon=True).start()
    try:
        worker.run()
    except Exception as error:  # noqa: BLE001  # the lifespan, or a store that is not ours
        channel.send(Failed("".join(traceback.format_exception_only(error)).strip()))
        traceback.print_exc()
        return EXIT_UNSTARTED
    return goodbye()


class Line:
    """Our end of the pipe that ties this process's life to its parent's."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        not_for_forks(self)

    def forget(self) -> None:
        os.close(self.fd)


def _load(setup: Setup) -> App:
    """The one place below the faces that knows the app: a process begins here, as it does in a face."""
    from dayjob.locate import AppRef, load

    app = load(AppRef(setup.target, setup.path, setup.main_file))
    url = setup.options.pop("url", None)
    if url is not None and url != app.url:
        app.url = url
    return app


def _worker(app: App, setup: Setup, channel: Channel) -> Worker:
    from dayjob.telemetry.logs import follow
    from dayjob.worker.worker import Worker

    def hello(incarnation: str) -> None:
        channel.send(Hello(incarnation))

    def leaving(why: str, again: bool) -> None:
        channel.send(Leaving(why, again))

    follow(app.bus, os.environ)
    return Worker(
        app.store,
        app.registry,
        app.settings,
        app.bus,
        app.hooks,
        app=app,
        ref=app.ref,
        solo=setup.role == "solo",
        on_incarnation=hello,
        on_leaving=leaving,
        **setup.options,
    )


def _obey(channel: Channel, worker: Worker) -> None:
    """Do what the parent says; when it is gone, end in order."""
    while True:
        message = channel.receive()
        if isinstance(message, Stop):
            worker.stop(now=message.now, why="its parent said so")
        elif message is None:
            worker.stop(why="its parent is gone")
            return


def die_with(lifeline: int) -> None:
    """Let the kernel end this process when the other end of the pipe *lifeline* closes.

    SIGIO ends a process that has no handler for it, whatever thread holds the GIL. Where the system has no such signals
    for pipes, the channel's end does the same as soon as Python code runs.
    """
    import fcntl

    try:
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    except (AttributeError, OSError):
        return


def entry() -> None:
    """Run `main` with the command line's file descriptors, and end the process."""
    end(main(int(sys.argv[2]), int(sys.argv[3])))


def end(code: int) -> NoReturn:
    """End this process, whatever runs in it."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of jobs that hang must not keep the process from its end, nor run on while the interpreter shuts down.
    os._exit(code)
