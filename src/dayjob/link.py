"""The app's line to its store: opened on first use, good after a fork, and exchangeable under test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from threading import RLock
from typing import TYPE_CHECKING
from weakref import WeakSet

from dayjob.errors import ConfigError, NotSupported

if TYPE_CHECKING:
    from dayjob.store.contract import Store

_EMBEDDED = ("sqlite:",)
"""Engines without a server or a deploy step: the first to open them brings their schema up to date."""


class Link:
    """Holds the store that an app uses now.

    Args:
        opener: opens the store of the app's URL. greet: called with the store when it is first used, before anybody else.
    """

    def __init__(self, opener: Callable[[], Store], greet: Callable[[Store], None] = lambda store: None) -> None:
        self._opener, self._greet = opener, greet
        self._store: Store | None = None
        self._bare: Store | None = None
        self._migrated: Store | None = None
        self._pid = 0
        self._lock = RLock()
        _LINKS.add(self)

    def __call__(self) -> Store:
        """The store, ready for use; opens it, and where that is no step of its own migrates it, on first use."""
        store = self._store
        if store is None or self._pid != os.getpid():
            return self._open()
        return store

    def bare(self) -> Store:
        """The store as it is, its schema not looked at: for `migrate` and `check`."""
        with self._lock:
            if self._bare is None:
                self._bare, self._pid = self._opener(), os.getpid()
            self._check_fork(self._bare)
            return self._bare

    def _open(self) -> Store:
        with self._lock:
            store = self.migrated()
            if self._store is None:
                self._greet(store)
                self._store = store
            return self._store

    def migrated(self) -> Store:
        """The store, ready for statements on a connection whose transaction nothing here may wait for: nobody greets it."""
        with self._lock:
            store = self.bare()
            if self._migrated is not store:
                if store.url.startswith(_EMBEDDED) and store.migrate(dry_run=True):
                    store.migrate()
                self._migrated = store
            return store

    @property
    def used(self) -> bool:
        """True once the store was used, and greeted."""
        return self._store is not None

    def require_schema(self) -> None:
        """Look, instead of migrating, for one who may hold a transaction that a migration would wait for.

        Raises:
            ConfigError: the schema is not there, or not up to date.
        """
        if self._store is None:
            store = self.bare()
            if store.url.startswith(_EMBEDDED) and store.migrate(dry_run=True):
                raise ConfigError(
                    f"{store.url} has no up-to-date tables of dayjob's, and they cannot be made beside a transaction of "
                    "yours: call app.open() when your program starts, or run: dayjob migrate"
                )

    def _check_fork(self, store: Store) -> None:
        """A forked child goes on with the same store, which knows what to do; one in memory is the parent's alone."""
        if self._pid == os.getpid():
            return
        if not store.processes:
            raise NotSupported(
                f"{store.url} after os.fork()", "an in-memory store lives in the process that opened it; use a file"
            )
        self._pid = os.getpid()

    @property
    def opened(self) -> bool:
        return self._bare is not None

    def close(self) -> None:
        """Let go of the store; a later call opens it again. Idempotent."""
        with self._lock:
            store, self._store, self._bare, self._migrated = self._bare, None, None, None
        if store is not None and self._pid == os.getpid():
            store.close()

    @contextlib.contextmanager
    def exchanged(self, store: Store) -> Iterator[None]:
        """Use *store* instead while the block runs; for every thread."""
        with self._lock:
            before = (self._store, self._bare, self._migrated, self._pid)
            self._store = self._bare = self._migrated = store
            self._pid = os.getpid()
        self._greet(store)
        try:
            yield
        finally:
            with self._lock:
                self._store, self._bare, self._migrated, self._pid = before

    def _forked(self) -> None:
        self._lock = RLock()


_LINKS: WeakSet[Link] = WeakSet()


def _after_fork() -> None:
    for link in list(_LINKS):
        link._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
