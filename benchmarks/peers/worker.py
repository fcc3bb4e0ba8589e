"""The worker of a peer in Python, as a process: `python -m benchmarks.peers.worker NAME`.

BENCH_URL names its database, BENCH_JOBS how many jobs wait there, BENCH_SETTING is one of the peer's. It says how long they took, and, when it has written
down what became of all, that it is done.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys

from benchmarks import peers
from benchmarks.children import say
from benchmarks.peers.peer import PythonPeer


def main() -> None:
    peer = peers.peer(sys.argv[1])
    assert isinstance(peer, PythonPeer)
    url, jobs, setting = os.environ["BENCH_URL"], int(os.environ["BENCH_JOBS"]), int(os.environ["BENCH_SETTING"])
    asyncio.run(peer.work(url, jobs, setting, lambda seconds: say(seconds=seconds)))
    say(done=True)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    main()
