"""The worker of a peer in Python, as a process: `python -m benchmarks.peers.worker NAME`.

BENCH_URL names its database, BENCH_JOBS how many jobs wait there (0: it runs until it is killed), BENCH_SETTING is one of
the peer's, BENCH_FAILING which jobs fail once. It says how long they took, and, when it has written down what became of
all, that it is done; to every word on standard input it answers with how many are, and how late they were.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading

from benchmarks import peers
from benchmarks.children import listen, say
from benchmarks.peers.peer import PythonPeer, Tally


async def main(peer: PythonPeer) -> None:
    tally = Tally(int(os.environ["BENCH_JOBS"]), int(os.environ.get("BENCH_FAILING", "0")))
    threading.Thread(target=_answer, args=(tally,), daemon=True).start()
    await peer.work(os.environ["BENCH_URL"], int(os.environ["BENCH_SETTING"]), tally)
    say(done=True)


def _answer(tally: Tally) -> None:
    while True:
        listen()
        say(done=tally.done, late=tally.late)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    peer = peers.peer(sys.argv[1])
    assert isinstance(peer, PythonPeer)
    with asyncio.Runner(loop_factory=peer.loop()) as runner:
        runner.run(main(peer))
