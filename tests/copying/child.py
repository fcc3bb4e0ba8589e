"""A copy in a process of its own that dies at a given call: `child.py FROM TO before|after STORE.METHOD NTH`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, cast

from dayjob.copier import Copier
from dayjob.store import open_store
from dayjob.store.contract import Store


class Deadly:
    """A store at whose *nth* call of *method* the process is killed, before it or after it."""

    def __init__(self, store: Store, when: str, method: str, nth: int) -> None:
        self._store, self._when, self._method, self._left = store, when, method, nth

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._deadly(found) if name == self._method else found

    def _deadly(self, call: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*args, **kwargs)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return called


def main(source: str, target: str, when: str, where: str, nth: str) -> None:
    side, method = where.split(".")
    stores = {"source": open_store(source), "target": open_store(target)}
    stores[side] = cast("Store", Deadly(stores[side], when, method, int(nth)))
    Copier(stores["source"], stores["target"]).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
