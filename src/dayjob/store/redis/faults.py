"""The one place where the driver's exceptions become dayjob's, each with what to do about it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

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
    "non local key": "its Cluster is moving the namespace's slot",
    "max number of clients": "it has no connection left: raise maxclients",
}
"""Conditions that pass: to repeat the call is right."""
MOVES = ("READONLY", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN", "UNBLOCKED", "non local key")
"""After these the primary is somewhere else."""
_FORBIDDEN = "this user may not do that: see the page on Redis for the rules it needs"
_LASTING = {
    "NOPERM": _FORBIDDEN,
    "user executing the script can't": _FORBIDDEN,
    "ACL failure": _FORBIDDEN,
    "NOSCRIPT": "it forgets scripts at once",
    "WAITAOF cannot": "wait_fsync=yes needs an append-only file: CONFIG SET appendonly yes, and in its configuration file",
    "WRONGTYPE": "somebody else keeps other things under the namespace's keys: choose another namespace",
}

_TLS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS: write redis:// or valkey://, or another port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS: write redis:// or valkey://, or another port",
    "CERTIFICATE_REQUIRED": "it wants a certificate of ours: give ssl_certfile= and ssl_keyfile=",
    "HANDSHAKE_FAILURE": "it wants a certificate of ours, or another version of TLS: give ssl_certfile= and ssl_keyfile=",
    "KEY_VALUES_MISMATCH": "the key in ssl_keyfile= is not that of the certificate in ssl_certfile=",
    "UNKNOWN_CA": "it does not trust our certificate: see ssl_certfile= here and tls-ca-cert-file there",
}


class Uncopied(RedisError):
    """What was written is not in as many places as it should be: nothing is wrong with the connection."""


def translated(error: Exception, where: str, wanted: int, *, connecting: bool = False) -> StoreError:
    """What *error* means; *where* is the URL without its password, *wanted* the schema that this code needs."""
    said = str(error).strip().replace("\n", " ")
    if isinstance(error, (DataError, OverflowError, UnicodeError, TypeError)):
        return BadRow(f"{where} cannot store this row ({said})")
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return StoreError(f"{where}: the user or the password is wrong, or missing: check the URL ({said})")
    status = getattr(error, "status_code", None) or said.partition(" ")[0]
    if status == "DAYJOB":
        return SchemaMismatch(int(said.rpartition(" ")[2]), wanted)
    insecure = _insecure(error, where)
    if insecure is not None:
        return StoreError(f"{where}: {insecure} ({said})")
    reason = told(error)
    if reason is not None:
        return StoreUnavailable(f"{where}: {_PASSING[reason]} ({said})")
    if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, Uncopied, LookupError, OSError)):
        return StoreUnavailable(f"{where}: {said}{_guess(error, where) if connecting else ''}")
    for word, remedy in _LASTING.items():
        if status == word or word in said:
            return StoreError(f"{where}: {remedy} ({said})")
    if "unknown command" in said.lower():
        return StoreError(f"{where}: it is too old, or forbids a command; Redis 6.2 or newer, or Valkey ({said})")
    if isinstance(error, RedisError):
        return StoreError(f"{where}: a script of dayjob's own failed, please report it ({said})")
    return StoreUnavailable(f"{where}: {said}")


def _insecure(error: Exception, where: str) -> str | None:
    """What is wrong with the line's encryption, if that is why there is none: nothing that passes by itself."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not to be trusted: give the file of who signed it as ssl_ca_certs=, and the host by the name in it"
        if isinstance(cause, (FileNotFoundError, PermissionError)) and "ssl_" in where:
            return "a file that it names (ssl_ca_certs=, ssl_certfile=, ssl_keyfile=) cannot be read"
        if isinstance(cause, ssl.SSLError):
            for word, remedy in _TLS.items():
                if word in (cause.reason or ""):
                    return remedy
    if isinstance(error, exceptions.InvalidResponse):
        return "it speaks another protocol: write rediss:// or valkeys:// if it wants TLS"
    return None


def _guess(error: Exception, where: str) -> str:
    """What may be the reason why a server that can be reached lets nobody in."""
    if not where.startswith(("rediss", "valkeys")):
        return ""
    if isinstance(error, exceptions.TimeoutError):
        return " (perhaps it does not speak TLS on this port)"
    ended = any(isinstance(cause, (ssl.SSLEOFError, ConnectionResetError)) for cause in _causes(error))
    return " (perhaps it wants a certificate of ours: ssl_certfile=, ssl_keyfile=)" if ended else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def told(error: Exception) -> str | None:
    """Which passing condition *error* tells of. Inside a script's error the server's words stand somewhere in it."""
    said = str(error)
    status = getattr(error, "status_code", None)
    for word in _PASSING:
        if status == word or said.startswith((f"{word} ", f"-{word} ")) or f"-{word} " in said or f": {word} " in said:
            return word
        if " " in word and word in said:
            return word
    return None
