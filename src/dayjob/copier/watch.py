"""Whether anybody works in the source: judged by what this process has seen of their beats, and not by the clock alone.

A store that was away took no beats, and every worker looks dead when it is back. So a stretch counts only while the source
answers, and takes writes: an outage takes no jobs from workers who go on after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dayjob.copier.steps import patiently

if TYPE_CHECKING:
    from dayjob.store.contract import Store

STEP = 2.0
"""Seconds that count at most between two looks: what happened in between nobody saw."""
SLOW = 1.0
"""A look that takes longer than so many seconds says that the source was away."""
DEATH = "it was gone when the store was copied"


class Watch:
    """The beats of the workers of *source*.

    Args:
        probe: writes something to the source, patiently.
        clock: seconds, monotonic, of this process.
    """

    def __init__(self, source: Store, probe: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.source, self._probe, self._clock = source, probe, clock
        self._calm: dict[str, tuple[int, float, float]] = {}
        self._looked = clock()

    def alone(self) -> bool:
        """Whether nobody works there, once every worker was seen not to beat for as long as it may be silent.

        Then nobody leads there, either, who would take back what dead workers had: it is done here.
        """
        begun = self._clock()
        if any(calm >= expiry / 2 for _, calm, expiry in self._calm.values()):
            self._probe()
        workers = patiently(self.source.workers)
        ended = self._clock()
        if ended - begun > SLOW:
            self._calm.clear()
        step, self._looked = min(ended - self._looked, STEP), ended
        seen = self._calm
        self._calm = {}
        for one in workers:
            beat, calm, _ = seen.get(one.info.id, (0, 0.0, 0.0))
            self._calm[one.info.id] = (one.last_beat, calm + step if beat == one.last_beat else 0.0, one.info.expiry)
        if any(calm < expiry for _, calm, expiry in self._calm.values()):
            return False
        for name in self._calm:
            patiently(lambda name=name: self.source.leave(name, death=DEATH))  # type: ignore[misc]
        return True
