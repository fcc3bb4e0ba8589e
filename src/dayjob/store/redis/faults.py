"""The one place where the driver's exceptions become dayjob's, each with what to do about it."""

from __future__ import annotations

from redis import exceptions
from redis.exceptions import AuthenticationError, AuthorizationError, DataError, RedisError

from dayjob.errors import BadRow, SchemaMismatch, StoreError, StoreUnavailable

_PASSING = {
    "READONLY": "it is a replica now: a failover is under way, or the URL leads to a replica",
    "LOADING": "it is starting and still reads its data",
    "MASTERDOWN": "it is a replica that has lost its primary: a failover is under way",
    "BUSY": "a script, perhaps somebody else's, keeps it busy: see SLOWLOG GET",
    "OOM": "its memory is full: raise maxmemory, or make room; what was acknowledged is safe",
    "MISCONF": "it cannot save to its disk: make room there, then look at its log",
    "NOREPLICAS": "it has not as many replicas as min-replicas-to-write wants",
    "CLUSTERDOWN": "its Cluster is down",
    "TRYAGAIN": "its Cluster is moving the namespace's slot",
    "MOVED": "its Cluster has moved the namespace's slot",
    "ASK": "its Cluster is moving the namespace's slot",
    "UNBLOCKED": "it became a replica",
    "max number of clients": "it has no connection left: raise maxclients",
}
"""Conditions that pass: to repeat the call is right."""
MOVES = ("READONLY", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN", "UNBLOCKED")
"""After these the primary is somewhere else."""
_FORBIDDEN = "this user may not do that: see the page on Redis for the rules it needs"
_LASTING = {
    "NOPERM": _FORBIDDEN,
    "user executing the script can't": _FORBIDDEN,
    "ACL failure": _FORBIDDEN,
    "NOSCRIPT": "it forgets scripts at once",
    "WRONGTYPE": "somebody else keeps other things under the namespace's keys: choose another namespace",
}


def translated(error: Exception, where: str, wanted: int) -> StoreError:
    """What *error* means; *where* is the URL without its password, *wanted* the schema that this code needs."""
    said = str(error).strip().replace("\n", " ")
    if isinstance(error, (DataError, OverflowError, UnicodeError, TypeError)):
        return BadRow(f"{where} cannot store this row ({said})")
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return StoreError(f"{where}: the user or the password is wrong, or missing: check the URL ({said})")
    status = getattr(error, "status_code", None) or said.partition(" ")[0]
    if status == "DAYJOB":
        return SchemaMismatch(int(said.rpartition(" ")[2]), wanted)
    reason = told(error)
    if reason is not None:
        return StoreUnavailable(f"{where}: {_PASSING[reason]} ({said})")
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, LookupError, OSError)):
        return StoreUnavailable(f"{where}: {said}")
    for word, remedy in _LASTING.items():
        if status == word or word in said:
            return StoreError(f"{where}: {remedy} ({said})")
    if "unknown command" in said.lower():
        return StoreError(f"{where}: it is too old, or forbids a command; Redis 6.2 or newer, or Valkey ({said})")
    if isinstance(error, RedisError):
        return StoreError(f"{where}: a script of dayjob's own failed, please report it ({said})")
    return StoreUnavailable(f"{where}: {said}")


def told(error: Exception) -> str | None:
    """Which passing condition *error* tells of. Inside a script's error the server's words stand somewhere in it."""
    said = str(error)
    status = getattr(error, "status_code", None)
    for word in _PASSING:
        if status == word or said.startswith((f"{word} ", f"-{word} ")) or f"-{word} " in said or f": {word} " in said:
            return word
    return "max number of clients" if "max number of clients" in said else None
