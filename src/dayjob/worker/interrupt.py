"""Raising an exception inside another thread: the one means Python has to end code that does not look.

The exception appears between two bytecodes of that thread. Code that waits inside C (a `time.sleep`, a socket, a lock)
meets it when the C call returns; that is why what does not end is abandoned in the end, and its process replaced.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

from dayjob.errors import JobTimeout


class Interrupted(BaseException):
    """A job is told to stop. No `Exception`, so that `except Exception` in a task does not swallow it."""


@lru_cache(maxsize=256)
def timeout_type(limit: float) -> type[JobTimeout]:
    """A `JobTimeout` that needs no argument: only a class can be raised in another thread."""

    def init(self: JobTimeout) -> None:
        JobTimeout.__init__(self, limit)

    return type("JobTimeout", (JobTimeout,), {"__init__": init, "__module__": JobTimeout.__module__})


def raise_in(ident: int, kind: type[BaseException]) -> bool:
    """Raise *kind* in the thread *ident*; False when there is no such thread. Replaces one not yet raised."""
    return bool(ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind)))


def call_off(ident: int) -> None:
    """Take back what `raise_in` has sent to the thread *ident* and what was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)
