"""Other job queues, each at its best setting, with the same jobs on the same machine in the same round.

`of(engine)` are those that work on an engine. One that is not there is skipped, and the record says why.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.peers.peer import Peer, ServedPeer

_PEERS = {
    "sqlite": {
        "huey": "benchmarks.peers.huey_sqlite:Huey",
        "huey_loose": "benchmarks.peers.huey_sqlite:LooseHuey",
    },
    "postgres": {
        "graphile": "benchmarks.peers.graphile:Graphile",
        "pgqueuer": "benchmarks.peers.pgqueuer:PgQueuer",
        "oban": "benchmarks.peers.oban:Oban",
        "chancy": "benchmarks.peers.chancy:Chancy",
        "procrastinate": "benchmarks.peers.procrastinate:Procrastinate",
    },
    "redis": {
        "bullmq": "benchmarks.peers.bullmq:BullMQ",
        "huey_redis": "benchmarks.peers.huey_redis:HueyRedis",
        "taskiq": "benchmarks.peers.taskiq:Taskiq",
        "dramatiq": "benchmarks.peers.dramatiq:Dramatiq",
        "streaq": "benchmarks.peers.streaq:Streaq",
        "saq": "benchmarks.peers.saq:Saq",
        "celery": "benchmarks.peers.celery:Celery",
        "arq": "benchmarks.peers.arq:Arq",
        "rq": "benchmarks.peers.rq:Rq",
    },
}


def of(engine: str) -> list[Peer]:
    """The peers on *engine*, the fastest first; none of their packages is imported yet."""
    return [peer(name) for name in _PEERS[engine]]


def served(engine: str) -> list[ServedPeer]:
    """Those on *engine* that are also asked for single jobs, latency and what they do while idle."""
    return [each for each in of(engine) if isinstance(each, ServedPeer)]


def everyone() -> list[Peer]:
    """The peers on all engines."""
    return [each for engine in _PEERS for each in of(engine)]


def versions(engine: str) -> dict[str, str]:
    """What is behind the peers on *engine*, for the record; those that are not there are left out."""
    found = {each.name: each.version() for each in of(engine) if not each.missing()}
    return {name: version for name, version in found.items() if version}


def peer(name: str) -> Peer:
    """The peer called *name*."""
    (path,) = (names[name] for names in _PEERS.values() if name in names)
    module, _, attribute = path.partition(":")
    made: Peer = getattr(import_module(module), attribute)()
    return made
