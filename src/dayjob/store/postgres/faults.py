"""The one place where the driver's exceptions become dayjob's, each with what to do about it."""

from __future__ import annotations

import psycopg

from dayjob.errors import BadRow, SchemaMismatch, StoreError, StoreUnavailable

_BAD_ROW = ("22", "23", "54")  # data, integrity constraint, program limit
_OURS = ("21", "42", "XX")  # to repeat such a statement would repeat its failure
_MISSING = ("3F000", "42P01", "42883", "42703", "42P13")  # schema, table, function, column

_REFUSED = {
    "28P01": "the password is wrong: check the URL, PGPASSWORD or ~/.pgpass",
    "28000": "the server does not let this user in from here: check the user, and pg_hba.conf (TLS may be required: add ?sslmode=require)",
    "3D000": "there is no such database: create it (createdb NAME), or correct the URL",
    "25006": "it is read-only (a standby, or default_transaction_read_only): give the URL of the primary",
    "42501": "this role may not do that: GRANT it one of dayjob's group roles, which dayjob migrate --roles makes",
    "57P03": None,
}
_TEXTS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "no encryption": "28000",
    "is not permitted to log in": "28000",
    'FATAL:  role "': "28000",
    "is not currently accepting connections": "57P03",
    'FATAL:  database "': "3D000",
    "too many clients": "53300",
    "remaining connection slots": "53300",
    "too many connections": "53300",
}
"""The beginning of a connection has no error codes in libpq, only the server's words."""


FAULTS = (psycopg.Error, OSError)
"""What the driver raises; the second, for one, when no descriptor is left to wait with."""


def translated(error: Exception, where: str, wanted: int) -> StoreError:
    """What *error* means; *where* is the URL without its password, *wanted* the schema that this code needs."""
    code = getattr(error, "sqlstate", None) or _code(str(error))
    said = str(error).strip().replace("\n", " ")
    if code in _MISSING:
        return SchemaMismatch(0, wanted)
    remedy = _REFUSED.get(code or "")
    if code == "42501" and "for database" in said:  # an English server's words; in others the general remedy
        remedy = "this role may make no schema there: let one who may run CREATE SCHEMA .. AUTHORIZATION .. for it, and migrate then"
    if remedy is not None:
        return StoreError(f"{where}: {remedy} ({said})")
    if code == "53100":
        return StoreUnavailable(f"the disk of {where} is full: make room; what was acknowledged is safe ({said})")
    if code == "53300":
        return StoreUnavailable(f"{where} has no connection left: raise max_connections, or use a pooler ({said})")
    if code in ("57014", "55P03", "25P03", "25P04"):
        return StoreUnavailable(
            f"{where} took too long: a time-out of ours or of the server ended the statement; look for a session that holds locks ({said})"
        )
    if code is None and isinstance(error, psycopg.DataError):
        return BadRow(f"{where} cannot store this row ({said})")
    if code is not None and code.startswith(_OURS):
        return StoreError(f"{where}: a statement of dayjob's own failed, please report it ({said})")
    if code is not None and code.startswith(_BAD_ROW):
        return BadRow(f"{where} cannot store this row ({said})")
    return StoreUnavailable(f"{where}: {said}")


def _code(said: str) -> str | None:
    if "FATAL" not in said and "fe_sendauth" not in said:
        return None
    return next((code for text, code in _TEXTS.items() if text in said), None)
