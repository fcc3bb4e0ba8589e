"""Without the garbage collector: what nobody names any more is gone at once, unless it holds itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_left(*kinds: type) -> Iterator[None]:
    """While this is open, the collector rests; in the end there must be no more objects of these *kinds* than before."""
    gc.collect()
    gc.disable()
    try:
        before = len(_those(kinds))
        yield
        assert len(_those(kinds)) <= before, f"some of these wait for the garbage collector: {_those(kinds)}"
    finally:
        gc.enable()


def _those(kinds: tuple[type, ...]) -> list[object]:
    return [one for one in gc.get_objects() if issubclass(type(one), kinds)]  # proxies answer isinstance for others
