"""What a job may have to wait for, as its task says it: keys, limits, lanes, breakers, and the templates of their names."""

from dayjob.gating.declared import Declared, key_of
from dayjob.gating.keys import Template, template
from dayjob.gating.values import Breaker, Concurrency, Debounce, Lane, RateLimit, Throttle, Unique

__all__ = [
    "Breaker",
    "Concurrency",
    "Debounce",
    "Declared",
    "Lane",
    "RateLimit",
    "Template",
    "Throttle",
    "Unique",
    "key_of",
    "template",
]
