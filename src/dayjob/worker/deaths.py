"""Calls the `on_dead` hooks: once for each job that died, in a thread of their own, after the store has accepted it."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from dayjob.errors import JobFailed, UnknownTask
from dayjob.events import Bus, HookFailed
from dayjob.service import Service
from dayjob.worker.run import Run

if TYPE_CHECKING:
    from dayjob.registry import Registry
    from dayjob.worker.executor import Executor
    from dayjob.worker.hooks import Hooks

IDLE = 3600.0
LIMIT = 60.0
"""An async hook that takes longer is cancelled."""


class Deaths(Service):
    """Started when the first job with a hook dies."""

    def __init__(self, registry: Registry, executor: Executor, hooks: Hooks, bus: Bus) -> None:
        super().__init__("deaths", bus)
        self._registry, self._executor, self._hooks = registry, executor, hooks
        self._waiting: deque[tuple[Any, str, BaseException]] = deque()

    def died(self, run: Run) -> None:
        """*run* is dead."""
        job = run.job
        error, run.error = run.error, None
        self.add(job.id, job.task, error or JobFailed(job.id, job.task, "crashed", None))

    def crashed(self, id: str, task: str, why: str) -> None:
        """A job of a worker that is gone is dead."""
        self.add(id, task, JobFailed(id, task, "crashed", why))

    def add(self, id: str, task: str, error: BaseException) -> None:
        """Call the hook of *task*, if it has one, soon."""
        try:
            hook = self._registry.get(task).dead_hook
        except UnknownTask:
            return
        if hook is None:
            return
        self._waiting.append((hook, id, error))
        if self.running:
            self.kick()
        else:
            self.start()

    def tick(self) -> float:
        while self._waiting:
            hook, id, error = self._waiting.popleft()
            try:
                self._call(hook, id, error)
            except Exception as failure:  # noqa: BLE001  # a user's hook; the job's end stands
                self.bus.emit(
                    HookFailed(
                        hook="on_dead",
                        id=id,
                        error=f"{type(failure).__name__}: {failure}",
                        traceback="".join(traceback.format_exception(failure)),
                    )
                )
        return IDLE

    def _call(self, hook: Any, id: str, error: BaseException) -> None:
        job = self._hooks.job(id) if self._hooks.job is not None else id
        if inspect.iscoroutinefunction(hook):
            self._executor.loop.submit(asyncio.wait_for(hook(job, error), LIMIT)).result(LIMIT + 5)
        else:
            hook(job, error)

    def drain(self, timeout: float) -> bool:
        """Wait until all hooks were called; False when *timeout* seconds were not enough."""
        self.stop()
        if not self.join(timeout):
            return False
        self.tick()
        return True
