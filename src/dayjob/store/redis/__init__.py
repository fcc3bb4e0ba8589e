"""The Redis engine: one namespace in Redis 6.2 or newer, or Valkey. Needs redis-py (`pip install "dayjob[redis]"`)."""

from dayjob.errors import ConfigError

try:
    import redis  # noqa: F401  looked for here, so that its absence is told in our words
except ImportError as error:
    raise ConfigError(
        "a redis:// or valkey:// URL needs redis-py, which is an extra: pip install 'dayjob[redis]'"
    ) from error

from dayjob.store.redis.store import RedisStore

__all__ = ["RedisStore"]
