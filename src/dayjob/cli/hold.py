"""A claim of one given job by the command line, with all that a worker owes the store for it: beats, and a settlement."""

from __future__ import annotations

import os
import socket
from threading import Event, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from dayjob.errors import StoreError
from dayjob.store.records import Want, WorkerInfo
from dayjob.worker.run import CANCEL, LOST

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from dayjob import App
    from dayjob.store.records import Claimed, JobRow, Settlement
    from dayjob.worker.run import Run

CLAIM = 1


class Hold:
    """Holds one job as a worker of its own, which beats in a thread: a debugger may take its time.

    It is solo, as the job runs alone in this process: should the process be killed, that counts as a crash of the job.

    Attributes:
        worker: the incarnation's id. job: what was claimed. run: set by whoever runs it; told when it should stop.
    """

    job: Claimed

    def __init__(self, app: App, row: JobRow) -> None:
        self._store, self._settings, self._row = app.store, app.settings, row
        self.worker = str(uuid4())
        self.run: Run | None = None
        self._over = Event()
        self._thread = Thread(target=self._beat, name="dayjob-hold", daemon=True)

    def __enter__(self) -> Self:
        self._store.beat(self._info(), ())
        claimed = self._store.turn(self.worker, CLAIM, (), [Want(None, 1, id=self._row.id)]).claimed
        if not claimed:
            self._store.leave(self.worker)
            raise click.ClickException(
                f"job {self._row.id} is {self._row.state}: only an available job can be claimed{self._remedy()}"
            )
        self.job = claimed[0]
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._store.leave(self.worker)

    def settle(self, settlement: Settlement) -> bool:
        """Write down how it ended; False when that came too late."""
        refused = self._store.turn(self.worker, None, [settlement]).refused
        self._store.notify("done", self._row.id.encode())
        return not refused

    def _beat(self) -> None:
        while not self._over.wait(self._settings.beat):
            try:
                beat = self._store.beat(self._info(), (CLAIM,))
            except StoreError:  # the next beat tries again; the lease outlasts a few of them
                continue
            if self.run is not None and self.run.stopping is None:
                if beat.lost:
                    self.run.stopping = LOST
                elif (self.job.id, self.job.entry) in beat.cancelled:
                    self.run.stopping = CANCEL

    def _info(self) -> WorkerInfo:
        host, pid = socket.gethostname(), os.getpid()
        return WorkerInfo(self.worker, f"{host}-{pid}", host, pid, "one job", 1, True, self._settings.lease)

    def _remedy(self) -> str:
        if self._row.state.terminal:
            return f"; put it back with `dayjob jobs retry {self._row.id}`"
        return f"; try `dayjob jobs edit {self._row.id} --run-at now`" if str(self._row.state) == "scheduled" else ""
