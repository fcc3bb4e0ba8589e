"""What dayjob's operations look like on the line, by engine: patterns for `Proxy.lose_replies`.

    proxy.lose_replies(ENQUEUE["postgres"], 10)

On PostgreSQL it is a statement that only this operation has. A job that the leader takes from a worker may end by the
same statement as one that is settled, and whoever takes a turn claims, even if nothing.
"""

from __future__ import annotations

ENQUEUE = {"postgres": r"'lock_timeout', \$14|\.put\(|\.enqueue_rows\(", "redis": r"^enqueue$"}
CLAIM = {"postgres": r"\.claim\(", "redis": r"^turn claim\b"}
SETTLE = {"postgres": r"\bWITH done AS|ORDER BY j.id FOR UPDATE OF j$|\.complete_job\(", "redis": r"^turn\b.* settle$"}
RECORD = {"postgres": r"SET progress = coalesce", "redis": r"^record$"}
BEAT = {"postgres": r"\bINSERT INTO \S+\.worker\b", "redis": r"^beat$"}

OPERATIONS = {"enqueue": ENQUEUE, "claim": CLAIM, "settle": SETTLE, "record": RECORD, "beat": BEAT}
