"""URLs of stores as people may see them."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

SECRET = frozenset({"password", "sslpassword", "sentinel_password"})
"""Parameters that are nobody's business."""


def without_password(url: str) -> str:
    """*url* for people: no password, wherever it stood."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user = quote(unquote(credentials.partition(":")[0]))
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in SECRET])
    netloc = f"{user}{at}{hosts}" if user else hosts
    plain = urlunsplit((parts.scheme, netloc, parts.path, query, ""))
    return plain if "://" in plain else plain.replace(":/", ":///", 1)
