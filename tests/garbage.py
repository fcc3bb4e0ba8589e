"""Without the garbage collector: what nobody names any more is gone at once, unless it holds itself."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 5.0


@contextmanager
def none_left(*kinds: type) -> Iterator[None]:
    """While this is open, the collector rests; in the end there must be no more objects of these *kinds* than before.

    A thread may still be about to let go of one; what waits for the collector waits longer than any thread.
    """
    gc.collect()
    gc.disable()
    try:
        before = len(_those(kinds))
        yield
        deadline = time.monotonic() + PATIENCE
        while len(_those(kinds)) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(_those(kinds)) <= before, f"some of these wait for the garbage collector: {_those(kinds)}"
    finally:
        gc.enable()


def _those(kinds: tuple[type, ...]) -> list[object]:
    return [one for one in gc.get_objects() if issubclass(type(one), kinds)]  # proxies answer isinstance for others
